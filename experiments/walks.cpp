#include "experiments/walks.hpp"

#include <algorithm>

#include "ruquant/base/error.hpp"
#include "ruquant/base/log.hpp"
#include "ruquant/base/machine.hpp"
#include "ruquant/io/tensor_store.hpp"

namespace ruq {

namespace fs = std::filesystem;

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
    walk_done_ = file.integer_attribute("aside", "layers_done");
    start_clock(file.real_attribute("aside", "seconds"),
                file.real_attribute("aside", "cpu_seconds"));
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
  file.attribute("aside", "layers_done", static_cast<std::int64_t>(done));
  file.attribute("aside", "seconds", seconds);
  file.attribute("aside", "cpu_seconds", processor_seconds);
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

}  // namespace ruq
