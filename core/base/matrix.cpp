#include "ruquant/base/matrix.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "ruquant/base/error.hpp"
#include "ruquant/base/machine.hpp"

#ifdef RUQ_HAVE_ONEDNN
#include <dnnl.h>
#include <omp.h>
#endif

namespace ruq {
namespace {

thread_local bool inside_parallel = false;

// oneDNN is threaded by OpenMP; every thread of ours asks it for one thread, once.
void use_one_library_thread() {
#ifdef RUQ_HAVE_ONEDNN
  thread_local const bool done = [] {
    omp_set_num_threads(1);
    return true;
  }();
  static_cast<void>(done);
#endif
}

// Workers sleep between jobs; a job hands out indices through one atomic counter.
class Pool {
 public:
  static Pool& instance() {
    static Pool pool;
    return pool;
  }

  ~Pool() { resize(1); }

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  void resize(int count) {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
    stopping_ = false;
    // A worker is told what has been handed out before it existed: were it to look for itself, it
    // could start late, take a job already posted for an old one, and never report back.
    for (int i = 1; i < count; ++i) {
      workers_.emplace_back([this, seen = generation_] { work(seen); });
    }
  }

  void run(Index count, const std::function<void(Index)>& body) {
    {
      const std::lock_guard lock(mutex_);
      body_ = &body;
      count_ = count;
      next_ = 0;
      busy_ = static_cast<int>(workers_.size());
      error_ = nullptr;
      ++generation_;
    }
    wake_.notify_all();
    take_all(body, count);
    std::unique_lock lock(mutex_);
    idle_.wait(lock, [this] { return busy_ == 0; });
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void work(std::uint64_t seen) {
    while (true) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stopping_ || generation_ != seen; });
      if (stopping_) return;
      seen = generation_;
      const auto* body = body_;
      const Index count = count_;
      lock.unlock();
      take_all(*body, count);
      lock.lock();
      if (--busy_ == 0) idle_.notify_one();
    }
  }

  void take_all(const std::function<void(Index)>& body, Index count) {
    inside_parallel = true;
    use_one_library_thread();
    for (Index i = next_++; i < count; i = next_++) {
      try {
        body(i);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (!error_) error_ = std::current_exception();
      }
    }
    inside_parallel = false;
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;
  const std::function<void(Index)>* body_ = nullptr;
  Index count_ = 0;
  std::atomic<Index> next_ = 0;
  int busy_ = 0;
  std::uint64_t generation_ = 0;
  bool stopping_ = false;
  std::exception_ptr error_;
};

#ifdef RUQ_HAVE_ONEDNN
void sgemm(const ConstMatrixView<float>& a, const ConstMatrixView<float>& b, char transpose_b,
           MatrixView<float> c) {
  use_one_library_thread();
  const auto status =
      dnnl_sgemm('N', transpose_b, c.rows(), c.cols(), a.cols(), 1.0F, a.data(), a.outerStride(),
                 b.data(), b.outerStride(), 0.0F, c.data(), c.outerStride());
  RUQ_CHECK(status == dnnl_success, "oneDNN sgemm returned {}", static_cast<int>(status));
}
#endif

// A window of one tile must keep more than one thread busy. Halving it changed no bits, in float or
// in double, on the machine where it was tried: rows of a product do not depend on each other.
Index tile_rows(Index rows) { return rows > kRowTile ? kRowTile : kRowTile / 2; }

}  // namespace

void set_threads(int count) {
  if (count < 1) fail("threads: found {}, expected at least 1", count);
  Pool::instance().resize(count);
}

int threads() { return Pool::instance().size(); }

void parallel_for(Index count, const std::function<void(Index)>& body) {
  if (inside_parallel || count <= 1 || threads() == 1) {
    for (Index i = 0; i < count; ++i) body(i);
    return;
  }
  Pool::instance().run(count, body);
}

double work_seconds() { return inside_parallel ? thread_cpu_seconds() : cpu_seconds(); }

void parallel_rows(Index rows, Index grain, const std::function<void(Index, Index)>& body) {
  const Index tiles = (rows + grain - 1) / grain;
  parallel_for(tiles, [&](Index tile) { body(tile * grain, std::min(rows, (tile + 1) * grain)); });
}

template <class S>
void product_into(const ConstMatrixView<S>& a, const ConstMatrixView<S>& b, MatrixView<S> c) {
#ifdef RUQ_HAVE_ONEDNN
  if constexpr (std::is_same_v<S, float>) return sgemm(a, b, 'N', c);
#endif
  c.noalias() = a * b;
}

template <class S>
void product_transposed_into(const ConstMatrixView<S>& a, const ConstMatrixView<S>& b,
                             MatrixView<S> c) {
#ifdef RUQ_HAVE_ONEDNN
  if constexpr (std::is_same_v<S, float>) return sgemm(a, b, 'T', c);
#endif
  c.noalias() = a * b.transpose();
}

template <class S>
Matrix<S> product(const ConstMatrixView<S>& a, const ConstMatrixView<S>& b) {
  RUQ_CHECK(a.cols() == b.rows(), "[{},{}]·[{},{}]", a.rows(), a.cols(), b.rows(), b.cols());
  Matrix<S> c(a.rows(), b.cols());
  parallel_rows(a.rows(), tile_rows(a.rows()), [&](Index begin, Index end) {
    product_into<S>(a.middleRows(begin, end - begin), b, c.middleRows(begin, end - begin));
  });
  return c;
}

template <class S>
Matrix<S> product_transposed(const ConstMatrixView<S>& a, const ConstMatrixView<S>& b) {
  RUQ_CHECK(a.cols() == b.cols(), "[{},{}]·[{},{}]ᵀ", a.rows(), a.cols(), b.rows(), b.cols());
  Matrix<S> c(a.rows(), b.rows());
  parallel_rows(a.rows(), tile_rows(a.rows()), [&](Index begin, Index end) {
    product_transposed_into<S>(a.middleRows(begin, end - begin), b,
                               c.middleRows(begin, end - begin));
  });
  return c;
}

std::string math_backend() {
#ifdef RUQ_HAVE_ONEDNN
  const dnnl_version_t* version = dnnl_version();
  return fmt::format("onednn {}.{}.{} (isa {:#x})", version->major, version->minor, version->patch,
                     static_cast<unsigned>(dnnl_get_effective_cpu_isa()));
#else
  return fmt::format("eigen {}.{}.{} ({})", EIGEN_WORLD_VERSION, EIGEN_MAJOR_VERSION,
                     EIGEN_MINOR_VERSION, Eigen::SimdInstructionSetsInUse());
#endif
}

#define RUQ_INSTANTIATE(S)                                                                        \
  template Matrix<S> product<S>(const ConstMatrixView<S>&, const ConstMatrixView<S>&);            \
  template Matrix<S> product_transposed<S>(const ConstMatrixView<S>&, const ConstMatrixView<S>&); \
  template void product_into<S>(const ConstMatrixView<S>&, const ConstMatrixView<S>&,             \
                                MatrixView<S>);                                                   \
  template void product_transposed_into<S>(const ConstMatrixView<S>&, const ConstMatrixView<S>&,  \
                                           MatrixView<S>);
RUQ_INSTANTIATE(float)
RUQ_INSTANTIATE(double)
#undef RUQ_INSTANTIATE

}  // namespace ruq
