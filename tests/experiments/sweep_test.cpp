#include "experiments/sweep.hpp"

#include <doctest/doctest.h>

#include <map>
#include <set>

#include "support/errors.hpp"
#include "support/temporary_folder.hpp"

namespace ruq::test {
namespace {

using Labels = std::vector<std::string>;

// A configuration file and what load_sweep makes of it.
class Loaded {
 public:
  explicit Loaded(const std::string& text) : file_(folder_ / "some.yaml") {
    write_bytes(file_, text);
  }
  Sweep sweep(const std::vector<std::string>& overrides = {},
              const std::vector<std::string>& only = {}) const {
    return load_sweep(file_, overrides, only);
  }
  Labels labels(const std::vector<std::string>& overrides = {}) const {
    Labels all;
    for (const Trial& trial : sweep(overrides).trials) all.push_back(trial.label);
    return all;
  }
  Labels left(const std::vector<std::string>& only) const {
    Labels all;
    for (const Trial& trial : sweep({}, only).trials) all.push_back(trial.label);
    return all;
  }
  void refused(std::initializer_list<std::string> words,
               const std::vector<std::string>& overrides = {}) const {
    check_error([&] { sweep(overrides); }, words);
  }
  const TemporaryFolder& folder() const { return folder_; }
  std::string at(int line) const { return fmt::format("{}:{}:", file_.string(), line); }

 private:
  TemporaryFolder folder_;
  std::filesystem::path file_;
};

std::string value(const Trial& trial, const std::string& key) {
  for (const auto& [name, text] : trial.config->flat()) {
    if (name == key) return text;
  }
  return "absent";
}

TEST_CASE("a selection leaves trials, with the names they have without it") {
  const Loaded file(
      "sweep:\n  - method: [rtn, quarot]\n    quant.widths: [W4A4-Q4K4V4, W6A6-Q6K6V6]\n"
      "  - method: duquant\n    method.lwc: [true, false]\n    quant.widths: W4A4-Q4K4V4\n");
  CHECK(file.left({"method=rtn,duquant", "quant.widths=W4A4-Q4K4V4"}) ==
        Labels{"rtn quant.widths=W4A4-Q4K4V4", "duquant method.lwc=true quant.widths=W4A4-Q4K4V4",
               "duquant method.lwc=false quant.widths=W4A4-Q4K4V4"});
  // Methods without the option stay.
  CHECK(file.left({"method.lwc=false", "quant.widths=W4A4-Q4K4V4"}) ==
        Labels{"rtn quant.widths=W4A4-Q4K4V4", "quarot quant.widths=W4A4-Q4K4V4",
               "duquant method.lwc=false quant.widths=W4A4-Q4K4V4"});
  const auto refused = [&](const std::vector<std::string>& only,
                           std::initializer_list<std::string> words) {
    check_error([&] { file.sweep({}, only); }, words);
  };
  refused({"method=rtn", "quant.widths=W4A4"},
          {"--only: quant.widths: found 'W4A4'", "one of W4A4-Q4K4V4, W6A6-Q6K6V6"});
  refused({"method=rtn", "method.lwc=true"}, {"--only: method.lwc: no method"});
  refused({"method.lwd=true"}, {"unknown key 'method.lwd'", "'method.lwc'"});
  refused({"quant.widths"}, {"found 'quant.widths', expected key=value"});
}

TEST_CASE("a file without a sweep is one trial") {
  const Loaded file("about: a line\nmethod: rtn\nevaluation: {windows: 3}\n");
  const Sweep sweep = file.sweep();
  CHECK(sweep.name == "some");
  CHECK(sweep.about == "a line");
  CHECK(sweep.axes.empty());
  REQUIRE(sweep.trials.size() == 1);
  CHECK(sweep.trials[0].label == "rtn");
  CHECK(value(sweep.trials[0], "evaluation.windows") == "3");
}

TEST_CASE(
    "every value of an axis is tried with every value of the others, the last turning first") {
  const Loaded file("sweep:\n  method: [hadamard, quarot]\n  seed: [4, 5]\n");
  CHECK(file.labels() ==
        Labels{"hadamard seed=4", "hadamard seed=5", "quarot seed=4", "quarot seed=5"});
}

TEST_CASE("grids are put one after another, and axes hold every swept option of the file") {
  const Loaded file(
      "sweep:\n- method: hadamard\n  seed: [1, 2]\n- method: quarot\n  quant.rounding: [rtn]\n");
  const Sweep sweep = file.sweep();
  CHECK(sweep.axes == std::vector<std::string>{"method", "seed", "quant.rounding"});
  REQUIRE(sweep.trials.size() == 3);
  const std::map<std::string, std::string> axes(sweep.trials[2].axes.begin(),
                                                sweep.trials[2].axes.end());
  CHECK(axes == std::map<std::string, std::string>{
                    {"method", "quarot"}, {"seed", "1"}, {"quant.rounding", "rtn"}});
}

TEST_CASE("trials that resolve alike are one trial, wherever they stand") {
  const Loaded file(
      "sweep:\n- method: [hadamard, quarot]\n- method: quarot\n  seed: [1, 2]\n"
      "- method: hadamard\n  method.smoothing: [none, none]\n");
  CHECK(file.labels() ==
        Labels{"hadamard", "quarot", "quarot seed=2", "hadamard method.smoothing=none"});
}

TEST_CASE("the seed of a method that draws nothing is zero and does not multiply") {
  const Loaded file("seed: 9\nsweep: {method: [rtn, smoothquant, quarot], seed: [3, 4]}\n");
  const Sweep sweep = file.sweep();
  REQUIRE(sweep.trials.size() == 4);
  CHECK(value(sweep.trials[0], "seed") == "0");
  CHECK(value(sweep.trials[1], "seed") == "0");
  CHECK(value(sweep.trials[3], "seed") == "4");
  for (const auto& [key, text] : sweep.trials[0].axes) CHECK(key != "seed");
}

TEST_CASE("an option of a method applies to those that have it") {
  const Loaded file("method.block_size: 16\nsweep: {method: [rtn, ruquant, duquant]}\n");
  const Sweep sweep = file.sweep();
  REQUIRE(sweep.trials.size() == 3);
  CHECK(value(sweep.trials[0], "method.block_size") == "absent");
  CHECK(value(sweep.trials[1], "method.block_size") == "16");
  CHECK(value(sweep.trials[2], "method.block_size") == "16");
}

TEST_CASE("an option that no method has is an error with its line") {
  const Loaded file("sweep: {method: [rtn, smoothquant]}\nmethod.block_size: 16\n");
  file.refused({file.at(2), "'method.block_size': no method of this file has this option"});
  const Loaded axis("sweep:\n- method: rtn\n- method: smoothquant\n  method.block_size: [8, 16]\n");
  axis.refused({axis.at(4), "method.block_size"});
}

TEST_CASE("unknown keys are named with file, line and the nearest known name") {
  const Loaded file("method: rtn\nevaluation:\n  windows: 2\n  window_token: 64\nsede: 3\n");
  file.refused({file.at(4) + " unknown key 'evaluation.window_token', did you mean "
                             "'evaluation.window_tokens'?",
                file.at(5) + " unknown key 'sede', did you mean 'seed'?"});
  const Loaded axis("sweep:\n- method: rtn\n  sed: [1, 2]\n");
  axis.refused({axis.at(3) + " unknown key 'sed'"});
}

TEST_CASE("all faulty values are reported at once") {
  const Loaded file("method: rtn\nseed: x\nrecord.plans: 2\nquant.widths: W4\n");
  file.refused({file.at(2) + " seed: found 'x'", file.at(3) + " record.plans: found '2'",
                file.at(4) + " quant.widths: found 'W4'"});
}

TEST_CASE("a key that is set twice is an error, whatever its spelling") {
  const Loaded nested("method: rtn\ntext.source: file\ntext: {source: tokens}\n");
  nested.refused({nested.at(3) + " 'text.source' is set twice"});
  const Loaded named("method: rtn\nmethod.name: quarot\n");
  named.refused({named.at(2), "is set twice"});
}

TEST_CASE("a preset stands below the options beside it, in any order") {
  const Loaded file(
      "method: rtn\nquant.activation.clip_ratio: 0.7\nquant.preset: ruquant\n"
      "quant.widths: W4A4-Q4K4V4\n");
  const Trial trial = file.sweep().trials.at(0);
  CHECK(value(trial, "quant.weight.clip_ratio") == "0.8");
  CHECK(value(trial, "quant.activation.clip_ratio") == "0.7");
  CHECK(value(trial, "quant.values.clip_ratio") == "1");
}

TEST_CASE("overrides replace settings and axes, and add axes") {
  const Loaded file(
      "seed: 3\nsweep:\n- method: [hadamard, quarot]\n- method: quarot\n  seed: [1]\n");
  CHECK(file.labels({"method=quarot"}) == Labels{"quarot", "quarot seed=1"});
  CHECK(file.labels({"seed=7", "method=quarot"}) == Labels{"quarot"});
  CHECK(file.labels({"seed=7,8", "method=quarot"}) == Labels{"quarot seed=7", "quarot seed=8"});
  CHECK(value(file.sweep({"seed=7"}).trials.at(0), "seed") == "7");
  CHECK(value(file.sweep({"activations.layers=0,2"}).trials.at(0), "activations.layers") == "0,2");
  file.refused({"command line: unknown key 'sede', did you mean 'seed'?"}, {"sede=1"});
  file.refused({"command line: found '=1', expected key=value"}, {"=1"});
}

TEST_CASE("files named by base lie under the file, later ones over earlier ones") {
  const Loaded file("base: [low.yaml, middle.yaml]\nseed: 3\n");
  write_bytes(file.folder() / "low.yaml",
              "about: low\nseed: 1\nevaluation.windows: 5\nsweep: {method: [hadamard, quarot]}\n");
  write_bytes(file.folder() / "middle.yaml", "evaluation.windows: 6\n");
  const Sweep sweep = file.sweep();
  CHECK(sweep.about.empty());
  REQUIRE(sweep.trials.size() == 2);
  CHECK(value(sweep.trials[1], "seed") == "3");
  CHECK(value(sweep.trials[1], "evaluation.windows") == "6");
}

TEST_CASE("the check section") {
  CHECK_FALSE(Loaded("check: parse\nmethod: rtn\n").sweep().check.run);
  const Loaded counted("check: {trials: 1}\nmethod: rtn\n");
  CHECK(counted.sweep().check.trials == 1);
  CHECK_FALSE(counted.sweep().check.run);
  const Check check = Loaded(
                          "method: rtn\ncheck:\n  with: {text: {source: tokens}, seed: 1}\n"
                          "  expect:\n  - {where: {method: rtn}, metric: nll, value: 2.5, "
                          "tolerance: 0.25}\n")
                          .sweep()
                          .check;
  CHECK(check.run);
  CHECK(check.with == std::vector<std::string>{"text.source=tokens", "seed=1"});
  REQUIRE(check.expect.size() == 1);
  CHECK(check.expect[0].where.front() == std::pair<std::string, std::string>("method", "rtn"));
  CHECK(check.expect[0].value == 2.5);
  CHECK(check.expect[0].tolerance == 0.25);
  // An expectation asks for a run by itself.
  CHECK(Loaded("method: rtn\ncheck: {expect: [{metric: nll, value: 1, tolerance: 1}]}\n")
            .sweep()
            .check.run);
  Loaded("method: rtn\ncheck: {expect: [{metric: nll, vale: 1}]}\n")
      .refused({"unknown key 'check.expect.vale', did you mean 'value'?"});
}

}  // namespace
}  // namespace ruq::test
