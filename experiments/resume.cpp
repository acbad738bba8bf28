#include "experiments/resume.hpp"

#include <algorithm>
#include <optional>

#include "experiments/file_lock.hpp"
#include "ruquant/base/error.hpp"
#include "ruquant/base/log.hpp"
#include "ruquant/base/machine.hpp"
#include "ruquant/io/tensor_store.hpp"

namespace ruq {

namespace fs = std::filesystem;

namespace {

// Nothing where there is no file, or another process that needs it no more has just removed it.
std::optional<TensorReader> open_kept(const fs::path& path) {
  if (!fs::exists(path)) return std::nullopt;
  try {
    return TensorReader(path);
  } catch (const Error&) {
    if (fs::exists(path)) throw;
    return std::nullopt;
  }
}

// What else a file tells is beside the plan.
std::string aside(const std::string& name) { return "aside/" + name; }

void write_rounded(const RoundedLinear& rounded, const Matrix<float>& weight, TensorWriter& file) {
  const std::string group = aside(to_string(rounded.linear));
  file.write(group + "/weight", weight);
  file.attribute(group, "layer", static_cast<std::int64_t>(rounded.layer));
  file.attribute(group, "seconds", rounded.seconds);
  file.attribute(group, "cpu_seconds", rounded.cpu_seconds);
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
                        .seconds = file.real_attribute(group, "seconds"),
                        .cpu_seconds = file.real_attribute(group, "cpu_seconds")};
  if (!file.has(group + "/details")) return rounded;
  for (const std::string& name : file.children(group + "/details")) {
    rounded.details[name] = file.vector<double>(group + "/details/" + name)(0);
  }
  return rounded;
}

}  // namespace

KeptParts::KeptParts(fs::path plan, double interval) : plan_(std::move(plan)), interval_(interval) {
  start_clock(0, 0);
  last_kept_ = began_;
}

// As if the plan had been begun so many seconds ago.
void KeptParts::start_clock(double seconds, double processor_seconds) {
  began_ = now_seconds() - seconds;
  cpu_began_ = cpu_seconds() - processor_seconds;
}

fs::path KeptParts::file_of(Index part) const {
  return fs::path(plan_).replace_extension(fmt::format("part{}.h5", part));
}

Index KeptParts::resume(Index part, Plan& plan) {
  parts_ = std::max(parts_, part + 1);
  part_done_ = 0;
  if (const auto file = open_kept(file_of(part))) {
    const QuantSettings quant = plan.quant;  // trials of a plan differ in how weights are rounded
    plan = read_plan(*file);
    plan.quant = quant;
    part_done_ = file->integer_attribute(aside("part"), "done");
    start_clock(file->real_attribute(aside("part"), "seconds"),
                file->real_attribute(aside("part"), "cpu_seconds"));
    logger().info("plan: goes on where {} were done", part_done_);
  }
  part_began_ = now_seconds();
  return part_done_;
}

void KeptParts::keep(Index part, Index done, Index all, const Plan& plan) {
  const double now = now_seconds();
  if (now - last_kept_ < interval_) return;
  const auto [seconds, processor_seconds] = took();
  TensorWriter file(file_of(part));
  write_plan(plan, file);
  file.attribute(aside("part"), "done", static_cast<std::int64_t>(done));
  file.attribute(aside("part"), "seconds", seconds);
  file.attribute(aside("part"), "cpu_seconds", processor_seconds);
  file.commit();
  last_kept_ = now;
  logger().info("plan: {} of {}, {} left", done, all,
                time_left(now - part_began_, done - part_done_, all - part_done_));
}

std::pair<double, double> KeptParts::took() const {
  return {now_seconds() - began_, cpu_seconds() - cpu_began_};
}

void KeptParts::clear() const {
  for (Index part = 0; part < parts_; ++part) fs::remove(file_of(part));
}

KeptRoundings::KeptRoundings(fs::path name, double shortest, Learner learner)
    : name_(std::move(name)), shortest_(shortest), learner_(std::move(learner)) {}

fs::path KeptRoundings::file_of(Index layer) const {
  return fs::path(name_).replace_extension(fmt::format("layer{}.h5", layer));
}

void KeptRoundings::round(const BlockTask<float>& task) {
  layers_ = std::max(layers_, task.layer + 1);
  if (find(task)) return;
  const FileLock lock(file_of(task.layer), fmt::format("the rounding of layers.{}", task.layer));
  waited_seconds_ += lock.waited();
  if (!find(task)) learn(task);
}

bool KeptRoundings::find(const BlockTask<float>& task) {
  const auto file = open_kept(file_of(task.layer));
  if (!file) return false;
  for (const LearningRecord& record : read_plan(*file).learning) task.learning.push_back(record);
  for (const Linear linear : kLinears) {
    task.rounded.push_back(read_rounded(linear, *file, task.weights[linear].weight));
    found_seconds_ += task.rounded.back().seconds;
  }
  logger().info("layers.{}: its rounding was learned before", task.layer);
  return true;
}

void KeptRoundings::learn(const BlockTask<float>& task) {
  const double start = now_seconds();
  const std::size_t records = task.learning.size();
  learner_(task);
  if (now_seconds() - start < shortest_) return;
  Plan learned;
  learned.learning.assign(task.learning.begin() + static_cast<Index>(records), task.learning.end());
  TensorWriter file(file_of(task.layer));
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
