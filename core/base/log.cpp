#include "ruquant/base/log.hpp"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>

#include <algorithm>
#include <utility>

#include "ruquant/base/machine.hpp"

namespace ruq {

spdlog::logger& logger() {
  static const auto instance = [] {
    auto made = std::make_shared<spdlog::logger>(
        "ruquant", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    made->set_pattern("%^%l%$ %v");
    made->flush_on(spdlog::level::info);  // a process that is killed leaves what it said
    return made;
  }();
  return *instance;
}

std::string duration(double seconds) {
  if (seconds < 90) return fmt::format("{:.0f} s", seconds);
  if (seconds < 5400) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

std::string time_left(double seconds, std::int64_t done, std::int64_t all) {
  if (done >= all) return "nothing";
  return "about " + duration(seconds / static_cast<double>(done) * static_cast<double>(all - done));
}

StepLog::StepLog(std::string name, std::int64_t steps, double interval)
    : name_(std::move(name)),
      steps_(steps),
      interval_(interval),
      began_(now_seconds()),
      told_(began_) {}

void StepLog::after(std::int64_t done) {
  const double now = now_seconds();
  if (done < 1 || now - told_ < interval_) return;
  told_ = now;
  logger().info("{}: {} of {} steps, {} left", name_, done, steps_,
                time_left(now - began_, done, steps_));
}

void set_verbosity(spdlog::level::level_enum level) {
  logger().sinks().front()->set_level(level);
  logger().set_level(std::min(level, spdlog::level::info));
}

LogFile::LogFile(const std::filesystem::path& file)
    : sink_(std::make_shared<spdlog::sinks::basic_file_sink_mt>(file.string())) {
  sink_->set_pattern("%Y-%m-%d %H:%M:%S %l %v");
  logger().sinks().push_back(sink_);
}

LogFile::~LogFile() {
  logger().flush();
  std::erase(logger().sinks(), sink_);
}

}  // namespace ruq
