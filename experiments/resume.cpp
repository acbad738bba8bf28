#include "experiments/resume.hpp"

#include <algorithm>

#include "ruquant/base/error.hpp"
#include "ruquant/base/log.hpp"
#include "ruquant/base/machine.hpp"
#include "ruquant/io/tensor_store.hpp"

namespace ruq {

namespace fs = std::filesystem;

namespace {

// What else a file tells is beside the plan.
std::string aside(const std::string& name) { return "aside/" + name; }

void write_rounded(const RoundedLinear& rounded, const Matrix<float>& weight, TensorWriter& file) {
  const std::string group = aside(to_string(rounded.linear));
  file.write(group + "/weight", weight);
  file.attribute(group, "layer", static_cast<std::int64_t>(rounded.layer));
  file.attribute(group, "seconds", rounded.seconds);
  const StoredBits& bits = rounded.bits;
  file.write(group + "/bits", Vector<double>{{bits.codes, bits.grid, bits.kept, bits.positions}});
  for (const auto& [name, value] : rounded.details) {
    file.write(group + "/details/" + name, &value, {1});
  }
}

RoundedLinear read_rounded(Linear linear, const TensorReader& file, Matrix<float>& weight) {
  const std::string group = aside(to_string(linear));
  weight = file.matrix<float>(group + "/weight");
  const Vector<double> bits = file.vector<double>(group + "/bits");
  RoundedLinear rounded{.layer = file.integer_attribute(group, "layer"),
                        .linear = linear,
                        .size = weight.size(),
                        .bits = {bits(0), bits(1), bits(2), bits(3)},
                        .details = {},
                        .seconds = file.real_attribute(group, "seconds")};
  if (!file.has(group + "/details")) return rounded;
  for (const std::string& name : file.children(group + "/details")) {
    rounded.details[name] = file.vector<double>(group + "/details/" + name)(0);
  }
  return rounded;
}

}  // namespace

KeptWalks::KeptWalks(fs::path plan, double interval) : plan_(std::move(plan)), interval_(interval) {
  start_clock(0, 0);
  last_kept_ = began_;
}

// As if the plan had been begun so many seconds ago.
void KeptWalks::start_clock(double seconds, double processor_seconds) {
  began_ = now_seconds() - seconds;
  cpu_began_ = cpu_seconds() - processor_seconds;
}

fs::path KeptWalks::file_of(Index walk) const {
  return fs::path(plan_).replace_extension(fmt::format("walk{}.h5", walk));
}

Index KeptWalks::resume(Index walk, Plan& plan) {
  walks_ = std::max(walks_, walk + 1);
  walk_done_ = 0;
  if (fs::exists(file_of(walk))) {
    const TensorReader file(file_of(walk));
    const QuantSettings quant = plan.quant;  // trials of a plan differ in how weights are rounded
    plan = read_plan(file);
    plan.quant = quant;
    walk_done_ = file.integer_attribute(aside("walk"), "layers_done");
    start_clock(file.real_attribute(aside("walk"), "seconds"),
                file.real_attribute(aside("walk"), "cpu_seconds"));
    logger().info("plan: goes on, {} layers were done before", walk_done_);
  }
  walk_began_ = now_seconds();
  return walk_done_;
}

void KeptWalks::keep(Index walk, Index done, Index layers, const Plan& plan) {
  const double now = now_seconds();
  if (now - last_kept_ < interval_) return;
  const auto [seconds, processor_seconds] = took();
  TensorWriter file(file_of(walk));
  write_plan(plan, file);
  file.attribute(aside("walk"), "layers_done", static_cast<std::int64_t>(done));
  file.attribute(aside("walk"), "seconds", seconds);
  file.attribute(aside("walk"), "cpu_seconds", processor_seconds);
  file.commit();
  last_kept_ = now;
  const double pace = (now - walk_began_) / static_cast<double>(done - walk_done_);
  logger().info("plan: {} of {} layers, about {} left", done, layers,
                duration(pace * static_cast<double>(layers - done)));
}

std::pair<double, double> KeptWalks::took() const {
  return {now_seconds() - began_, cpu_seconds() - cpu_began_};
}

void KeptWalks::clear() const {
  for (Index walk = 0; walk < walks_; ++walk) fs::remove(file_of(walk));
}

KeptRoundings::KeptRoundings(fs::path name, double shortest, Learner learner)
    : name_(std::move(name)), shortest_(shortest), learner_(std::move(learner)) {}

fs::path KeptRoundings::file_of(Index layer) const {
  return fs::path(name_).replace_extension(fmt::format("layer{}.h5", layer));
}

void KeptRoundings::round(const BlockTask<float>& task) {
  layers_ = std::max(layers_, task.layer + 1);
  const fs::path path = file_of(task.layer);
  if (fs::exists(path)) {
    const TensorReader file(path);
    for (const LearningRecord& record : read_plan(file).learning) task.learning.push_back(record);
    for (const Linear linear : kLinears) {
      task.rounded.push_back(read_rounded(linear, file, task.weights[linear].weight));
      found_seconds_ += task.rounded.back().seconds;
    }
    logger().info("layers.{}: its rounding was learned before", task.layer);
    return;
  }
  const double start = now_seconds();
  const std::size_t records = task.learning.size();
  learner_(task);
  if (now_seconds() - start < shortest_) return;
  Plan learned;
  learned.learning.assign(task.learning.begin() + static_cast<Index>(records), task.learning.end());
  TensorWriter file(path);
  write_plan(learned, file);
  for (const RoundedLinear& rounded : task.rounded) {
    if (rounded.layer != task.layer) continue;
    write_rounded(rounded, task.weights[rounded.linear].weight, file);
  }
  file.commit();
  logger().info("layers.{}: rounding learned in {}", task.layer, duration(now_seconds() - start));
}

void KeptRoundings::clear() const {
  for (Index layer = 0; layer < layers_; ++layer) fs::remove(file_of(layer));
}

}  // namespace ruq
