// One logger. Messages go to standard error and, while a trial runs, to its log.txt as well;
// standard output is for answers.
#pragma once

#include <spdlog/spdlog.h>

#include <cstdint>
#include <filesystem>
#include <string>

namespace ruq {

/// Also writes every message to `file` until the returned guard is destroyed.
class LogFile {
 public:
  explicit LogFile(const std::filesystem::path& file);
  ~LogFile();
  LogFile(const LogFile&) = delete;
  LogFile& operator=(const LogFile&) = delete;

 private:
  spdlog::sink_ptr sink_;
};

/// The logger; the first call creates it.
spdlog::logger& logger();

/// For messages: "40 s", "12 min", "3.1 h".
std::string duration(double seconds);

/// For messages, of work of equal pieces: "about 12 min" from what `done` of `all` took, "nothing"
/// when all are done.
std::string time_left(double seconds, std::int64_t done, std::int64_t all);

/// Tells how a long loop of equal steps gets on: "NAME: 512 of 2560 steps, about 20 min left", at
/// most once in `interval` seconds, so that a short one says nothing.
class StepLog {
 public:
  StepLog(std::string name, std::int64_t steps, double interval = 60);
  void after(std::int64_t done);  ///< `done` steps

 private:
  std::string name_;
  std::int64_t steps_;
  double interval_;
  double began_, told_;  // seconds of now_seconds()
};

/// The least level that goes to standard error (info unless set). Files get info and above whatever
/// standard error gets, and debug where that does.
void set_verbosity(spdlog::level::level_enum level);

}  // namespace ruq
