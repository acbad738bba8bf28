#include "support/oracle.hpp"

#include <algorithm>
#include <cstdlib>
#include <iostream>

namespace ruq::test {
namespace {

struct Worst {
  double share = 0;
  std::string what = "all equal";
};

bool& skipped() {
  static bool seen = false;
  return seen;
}

Worst& worst() {
  static Worst seen;
  return seen;
}

std::optional<std::filesystem::path> folder_of(const char* variable) {
  const char* folder = std::getenv(variable);
  if (folder == nullptr || *folder == '\0') return std::nullopt;
  return std::filesystem::path(folder);
}

}  // namespace

void note_share(double share, const std::string& what) {
  if (share > worst().share) worst() = {share, what};
}

void report_worst(const std::string& fixture) {
  std::cout << fixture << ": worst error " << worst().share << " of its tolerance (" << worst().what
            << ")\n";
  worst() = {};
}

bool skipped_some() { return skipped(); }

std::optional<std::filesystem::path> oracle_directory() { return folder_of("RUQ_ORACLE_DIR"); }

void skip_without_oracle() {
  skipped() = true;
  std::cout << "skipped: no reference numbers (RUQ_ORACLE_DIR is not set)\n";
}

std::optional<std::filesystem::path> folder_or_skip(const char* variable) {
  auto folder = folder_of(variable);
  if (!folder) {
    skipped() = true;
    std::cout << "skipped: " << variable << " is not set\n";
  }
  return folder;
}

Index asked_count(const char* variable, Index usual, Index all) {
  const char* text = std::getenv(variable);
  const Index asked = text != nullptr && *text != '\0' ? std::stoll(text) : usual;
  return asked == 0 ? all : std::min(asked, all);
}

Matrix<double> OracleCase::slice(const std::string& name, Index index) const {
  const Shape all = shape(name);
  REQUIRE(all.size() == 3);
  const Vector<double> flat = vector(name);
  return Eigen::Map<const Matrix<double>>(flat.data() + index * all[1] * all[2], all[1], all[2]);
}

void for_each_case(const std::string& fixture, const std::function<void(const OracleCase&)>& body) {
  const auto directory = oracle_directory();
  if (!directory) return skip_without_oracle();
  const TensorReader file(*directory / (fixture + ".h5"));
  const Index cases = file.integer_attribute("", "n_cases");
  REQUIRE(cases > 0);
  for (Index i = 0; i < cases; ++i) {
    const std::string group = "case" + std::to_string(i);
    INFO(fixture << " " << group);
    body(OracleCase(file, group));
  }
  report_worst(fixture);
}

}  // namespace ruq::test
