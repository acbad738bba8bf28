// One process at a time makes what several of them want; the others wait and find it made.
#pragma once

#include <filesystem>
#include <string>

namespace ruq {

/// An advisory lock (flock) on "<file>.lock", which is there while a process holds it or waits for
/// it. It ends with the process, however that ends, and a signal ends a process that waits as it
/// ends any other.
class FileLock {
 public:
  /// Waits while another process holds the lock, and says once that `what` is waited for. Where the
  /// disk has no locks there is none, which is said too. Error if the folder cannot be written to.
  FileLock(const std::filesystem::path& file, const std::string& what);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

  /// Seconds that another process held it.
  double waited() const { return waited_; }

 private:
  void open();
  void close();
  bool lock(const std::string& what);
  bool wait(const std::string& what);

  std::filesystem::path path_;
  int descriptor_ = -1;
  double waited_ = 0;
};

}  // namespace ruq
