// One logger. Messages go to standard error and, while a trial runs, to its log.txt as well;
// standard output is for answers.
#pragma once

#include <spdlog/spdlog.h>

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

/// The least level that goes to standard error (info unless set). Files get info and above whatever
/// standard error gets, and debug where that does.
void set_verbosity(spdlog::level::level_enum level);

}  // namespace ruq
