#include "ruquant/base/matrix.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

// A·B by three loops.
template <class S>
Matrix<double> naive_product(const Matrix<S>& a, const Matrix<S>& b) {
  Matrix<double> c = Matrix<double>::Zero(a.rows(), b.cols());
  for (Index i = 0; i < a.rows(); ++i) {
    for (Index j = 0; j < b.cols(); ++j) {
      for (Index k = 0; k < a.cols(); ++k) c(i, j) += double(a(i, k)) * double(b(k, j));
    }
  }
  return c;
}

template <class S>
void check_products(double tolerance) {
  for (const auto& [m, k, n] : std::vector<std::array<Index, 3>>{
           {1, 1, 1}, {3, 5, 2}, {1, 40, 7}, {kRowTile + 3, 20, 9}, {2 * kRowTile, 1, 4}}) {
    const Matrix<S> a = gaussian(m, k, "a").template cast<S>();
    const Matrix<S> b = gaussian(k, n, "b").template cast<S>();
    const Matrix<double> expected = naive_product(a, b);
    CHECK(relative_error(product<S>(a, b), expected) < tolerance);
    const Matrix<S> transposed = b.transpose();
    CHECK(relative_error(product_transposed<S>(a, transposed), expected) < tolerance);
    Matrix<S> c(m, n);
    product_into<S>(a, b, c);
    CHECK(relative_error(c, expected) < tolerance);
    product_transposed_into<S>(a, transposed, c);
    CHECK(relative_error(c, expected) < tolerance);
  }
}

TEST_CASE("products equal three loops, in double and float, over more than one tile") {
  check_products<double>(1e-13);
  check_products<float>(1e-5);
}

template <class S>
void check_views() {
  const Matrix<S> wide = gaussian(6, 20, "wide").cast<S>();
  const Matrix<S> b = gaussian(5, 8, "b").cast<S>();
  Matrix<S> target = Matrix<S>::Constant(6, 30, S(7));
  product_into<S>(wide.middleCols(3, 5), b, target.middleCols(11, 8));
  const Matrix<S> part = wide.middleCols(3, 5);
  CHECK(relative_error(Matrix<S>(target.middleCols(11, 8)), naive_product(part, b)) < 1e-5);
  CHECK((target.leftCols(11).array() == S(7)).all());
  CHECK((target.rightCols(11).array() == S(7)).all());
  const Matrix<S> lead = wide.leftCols(5);
  CHECK(product_transposed<S>(wide.leftCols(5), wide.leftCols(5)) ==
        product_transposed<S>(lead, lead));
}

TEST_CASE("products take and fill columns of wider matrices") {
  check_views<double>();
  check_views<float>();
}

TEST_CASE("shapes that do not match are caught") {
  const Matrix<double> a = gaussian(2, 3, "a");
  check_error([&] { product<double>(a, a); }, {"[2,3]", "[2,3]"});
  check_error([&] { product_transposed<double>(a, gaussian(2, 4, "b")); }, {"[2,3]", "[2,4]"});
}

TEST_CASE("products do not depend on the number of threads") {
  const Matrix<float> a = gaussian(1000, 64, "a").cast<float>();
  const Matrix<float> b = gaussian(48, 64, "b").cast<float>();
  const Matrix<float> one = product_transposed<float>(a, b);
  set_threads(3);
  CHECK(product_transposed<float>(a, b) == one);
  set_threads(1);
}

TEST_CASE("parallel_for runs every index once, on any number of threads") {
  for (const int count : {1, 2, 4}) {
    set_threads(count);
    CHECK(threads() == count);
    std::vector<std::atomic<int>> runs(1000);
    parallel_for(1000, [&](Index i) { ++runs[std::size_t(i)]; });
    CHECK(std::all_of(runs.begin(), runs.end(), [](const auto& n) { return n == 1; }));
    parallel_for(0, [&](Index) { FAIL("nothing to do"); });
  }
  set_threads(1);
}

TEST_CASE("threads take part") {
  set_threads(2);
  std::mutex mutex;
  std::set<std::thread::id> ids;
  std::atomic<int> here = 0;
  // Both indices wait for each other, so two threads must hold them.
  parallel_for(2, [&](Index) {
    ++here;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (here < 2 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    const std::lock_guard lock(mutex);
    ids.insert(std::this_thread::get_id());
  });
  set_threads(1);
  CHECK(ids.size() == 2);
}

TEST_CASE("the work of a thread is its own, outside of parallel_for that of all") {
  set_threads(2);
  const double start = work_seconds();
  parallel_for(2, [](Index) {
    const double here = work_seconds();
    volatile double sum = 0;
    while (work_seconds() - here < 0.02) sum = sum + 1;
  });
  CHECK(work_seconds() - start >= 0.0399);  // the clocks differ in their grain
  set_threads(1);
}

TEST_CASE("a pool is ready for work as soon as it is made") {
  // A worker that starts late must not miss the first job, nor the last one of the pool before.
  for (int round = 0; round < 300; ++round) {
    set_threads(2 + round % 3);
    std::atomic<int> sum = 0;
    parallel_for(8, [&](Index i) { sum += int(i); });
    REQUIRE(sum == 28);
  }
  set_threads(1);
}

TEST_CASE("parallel_rows cuts into ranges of the grain") {
  std::vector<std::pair<Index, Index>> ranges;
  parallel_rows(10, 4, [&](Index begin, Index end) { ranges.emplace_back(begin, end); });
  CHECK(ranges == std::vector<std::pair<Index, Index>>{{0, 4}, {4, 8}, {8, 10}});
  parallel_rows(0, 4, [&](Index, Index) { FAIL("no rows"); });
}

TEST_CASE("an exception of a body arrives at the caller, and the pool lives on") {
  for (const int count : {1, 2}) {
    set_threads(count);
    check_error(
        [] {
          parallel_for(50, [](Index i) {
            if (i == 31) fail("at {}", i);
          });
        },
        {"at 31"});
    std::atomic<int> runs = 0;
    parallel_for(10, [&](Index) { ++runs; });
    CHECK(runs == 10);
  }
  set_threads(1);
}

TEST_CASE("nested loops run on the thread that calls them") {
  set_threads(2);
  std::vector<std::atomic<int>> runs(100);
  std::atomic<bool> moved = false;
  parallel_for(10, [&](Index i) {
    const auto outer = std::this_thread::get_id();
    parallel_for(10, [&](Index j) {
      if (std::this_thread::get_id() != outer) moved = true;
      ++runs[std::size_t(10 * i + j)];
    });
  });
  set_threads(1);
  CHECK_FALSE(moved);
  CHECK(std::all_of(runs.begin(), runs.end(), [](const auto& n) { return n == 1; }));
}

TEST_CASE("no threads are refused") {
  check_error([] { set_threads(0); }, {"threads", "0"});
}

TEST_CASE("the math backend has a name") {
  const std::string name = math_backend();
  CHECK((name.rfind("onednn ", 0) == 0 || name.rfind("eigen ", 0) == 0));
}

}  // namespace
}  // namespace ruq::test
