#include "experiments/file_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "ruquant/base/error.hpp"
#include "ruquant/base/log.hpp"
#include "ruquant/base/machine.hpp"

namespace ruq {
namespace {

bool locked(int descriptor, int operation) {
  int answer = 0;
  do {
    answer = flock(descriptor, operation);
  } while (answer < 0 && errno == EINTR);
  return answer == 0;
}

// Whether the open file still has this name: who held the lock before has removed it.
bool has_name(int descriptor, const std::filesystem::path& path) {
  struct stat opened {};
  struct stat named {};
  return fstat(descriptor, &opened) == 0 && stat(path.c_str(), &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

}  // namespace

FileLock::FileLock(const std::filesystem::path& file, const std::string& what) : path_(file) {
  path_ += ".lock";
  do {
    close();
    open();
    if (!lock(what)) {
      const int reason = errno;
      logger().warn("{}: cannot be locked: {}", path_.string(), std::strerror(reason));
      close();
      return;
    }
  } while (!has_name(descriptor_, path_));
}

FileLock::~FileLock() {
  if (descriptor_ < 0) return;
  unlink(path_.c_str());  // while it is held: who waits for it finds the name gone and begins anew
  close();
}

void FileLock::open() {
  descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail("{}: cannot be opened: {}", path_.string(), std::strerror(errno));
}

void FileLock::close() {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
}

bool FileLock::lock(const std::string& what) {
  if (locked(descriptor_, LOCK_EX | LOCK_NB)) return true;
  return errno == EWOULDBLOCK && wait(what);
}

bool FileLock::wait(const std::string& what) {
  if (waited_ == 0) logger().info("waits for {}, which another process is making", what);
  const double start = now_seconds();
  const bool held = locked(descriptor_, LOCK_EX);
  waited_ += now_seconds() - start;
  return held;
}

}  // namespace ruq
