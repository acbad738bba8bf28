// Reference numbers in HDF5: RUQ_ORACLE_DIR/<fixture>.h5 with n_cases and groups case0, case1, ...
#pragma once

#include <doctest/doctest.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "ruquant/base/matrix.hpp"
#include "ruquant/io/tensor_store.hpp"

namespace ruq::test {

/// The folder named by RUQ_ORACLE_DIR, or nothing when it is not set.
std::optional<std::filesystem::path> oracle_directory();

/// Says that RUQ_ORACLE_DIR is not set; a program without failures then counts as skipped.
void skip_without_oracle();
/// The folder that a variable names; without it says so, and the program counts as skipped.
std::optional<std::filesystem::path> folder_or_skip(const char* variable);
/// Whether either was left out.
bool skipped_some();

/// How many of `all` items, windows, ... an environment variable asks for: `usual` if it is not
/// set, and all of them for 0.
Index asked_count(const char* variable, Index usual, Index all);

/// One case of a fixture file.
class OracleCase {
 public:
  OracleCase(const TensorReader& file, std::string group) : file_(file), group_(std::move(group)) {}
  Matrix<double> matrix(const std::string& name) const { return file_.matrix<double>(path(name)); }
  Vector<double> vector(const std::string& name) const { return file_.vector<double>(path(name)); }
  std::vector<Index> integers(const std::string& name) const { return file_.integers(path(name)); }
  Shape shape(const std::string& name) const { return file_.shape(path(name)); }
  bool has(const std::string& name) const { return file_.has(path(name)); }
  Index integer(const std::string& name) const { return file_.integer_attribute(group_, name); }
  double real(const std::string& name) const { return file_.real_attribute(group_, name); }
  bool has_attribute(const std::string& name) const { return file_.has_attribute(group_, name); }
  const std::string& name() const { return group_; }
  /// Slice `index` of a dataset of rank 3, as a matrix.
  Matrix<double> slice(const std::string& name, Index index) const;

 private:
  std::string path(const std::string& name) const { return group_ + "/" + name; }
  const TensorReader& file_;
  std::string group_;
};

/// Runs `body` on every case of a fixture. Without RUQ_ORACLE_DIR prints "skipped: no reference
/// numbers" instead; with it, a missing file or one without cases fails.
void for_each_case(const std::string& fixture, const std::function<void(const OracleCase&)>& body);

/// Remembers how far a comparison used up its tolerance: error / allowed error, 0 to 1 when good.
void note_share(double share, const std::string& what);
/// Prints the largest share noted since the last report, "fixture: worst error 0.02 of its
/// tolerance (what)". for_each_case does it after the last case.
void report_worst(const std::string& fixture);

/// max|a-b| <= tol · scale; reports the error when it fails.
template <class A, class B>
void check_close_at(const A& a, const B& b, double tolerance, double scale,
                    const std::string& what) {
  REQUIRE_MESSAGE(a.rows() == b.rows(), what);
  REQUIRE_MESSAGE(a.cols() == b.cols(), what);
  if (b.size() == 0) return;
  const Matrix<double> difference = a.template cast<double>() - b.template cast<double>();
  REQUIRE_MESSAGE(difference.allFinite(), what);
  const double error = difference.cwiseAbs().maxCoeff();
  if (error > 0) note_share(error / (tolerance * scale), what);
  INFO(what << ": error " << error << " at scale " << scale);
  CHECK(error <= tolerance * scale);
}

/// max|a-b| <= tol · max|b|, the rule of the fixtures.
template <class A, class B>
void check_close(const A& a, const B& b, double tolerance, const std::string& what) {
  const double scale = b.size() == 0 ? 0 : b.template cast<double>().cwiseAbs().maxCoeff();
  check_close_at(a, b, tolerance, scale, what);
}

/// Equal shapes and equal numbers: codes, zero points, permutations.
template <class A, class B>
void check_exact(const A& a, const B& b, const std::string& what) {
  REQUIRE_MESSAGE(a.rows() == b.rows(), what);
  REQUIRE_MESSAGE(a.cols() == b.cols(), what);
  const Index different =
      (a.template cast<double>().array() != b.template cast<double>().array()).count();
  INFO(what << ": " << different << " of " << b.size() << " entries differ");
  CHECK(different == 0);
}

}  // namespace ruq::test
