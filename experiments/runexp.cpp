// Command line of the ablation runner: parse, dispatch, exit code. Nothing else.
#include <boost/program_options.hpp>
#include <iostream>

#include "experiments/commands.hpp"
#include "experiments/theory.hpp"
#include "ruquant/base/error.hpp"
#include "ruquant/base/log.hpp"
#include "ruquant/base/machine.hpp"

namespace {

namespace po = boost::program_options;

constexpr const char* kUsage =
    "runexp [run|dump|verify] CONFIG [key=value ...] [options]\n"
    "runexp theory [--density NAME] [--bits N]\n\n"
    "  run      the trials of CONFIG that are not done yet, tables and figures (the default)\n"
    "  dump     write the activations that CONFIG names to HDF5\n"
    "  verify   do what CONFIG's own check says\n"
    "  theory   scalar quantizers of a density as JSON\n\n"
    "key=value overrides an option; key=a,b,c tries each value.\n"
    "Exit code: 0 all done, 1 some trial failed, 2 the request was wrong.\n";

po::options_description options() {
  po::options_description description("Options");
  auto add = description.add_options();
  add("help", "this text and every option of CONFIG");
  add("list", "print the numbered trials");
  add("status", "print the numbered trials with what is recorded of them in the run folder");
  add("print-config", "print the resolved options of the trials");
  add("only", po::value<std::vector<std::string>>(),
      "KEY=A,B leaves the trials with one of these values, and those of methods without KEY; may "
      "be given several times");
  add("trial", po::value<ruq::Index>(), "run or print this trial alone (numbered as --list does)");
  add("jobs", po::value<ruq::Index>()->default_value(0),
      "worker processes (0: one a processor when there are several trials to do, and memory holds "
      "them)");
  add("threads", po::value<ruq::Index>()->default_value(0),
      "threads of a job (0: all processors divided among the jobs)");
  add("force", "do again what is done");
  add("any-arithmetic",
      "a trial recorded with the arithmetic of another processor (oneDNN's instruction set) counts "
      "as done; results and tables tell which");
  add("out", po::value<std::string>()->default_value(""), "run folder (dump: file)");
  add("no-figures", "do not draw figures at the end");
  add("slurm", po::value<std::string>()->implicit_value("submit"),
      "submit a job array, one task a trial; --slurm=print shows it");
  const ruq::TheoryRequest theory;
  add("density", po::value<std::string>()->default_value(theory.density),
      ("theory: one of " + ruq::density_names()).c_str());
  add("bits", po::value<ruq::Index>()->default_value(theory.bits), "theory: 1 to 8");
  add("degrees", po::value<double>()->default_value(theory.degrees), "theory: of student_t");
  add("verbose", "say more");
  add("quiet", "say only what went wrong");
  return description;
}

int dispatch(const po::variables_map& map, ruq::Request request, std::vector<std::string> words) {
  std::string verb = "run";
  const std::vector<std::string> verbs = {"run", "dump", "verify", "theory"};
  if (!words.empty() && std::find(verbs.begin(), verbs.end(), words[0]) != verbs.end()) {
    verb = words[0];
    words.erase(words.begin());
  }
  if (verb == "theory") {
    if (!words.empty()) ruq::fail("theory: found '{}', expected nothing", words[0]);
    std::cout << ruq::theory_json({map["density"].as<std::string>(), map["bits"].as<ruq::Index>(),
                                   map["degrees"].as<double>()})
              << "\n";
    return 0;
  }
  if (words.empty()) ruq::fail("CONFIG: found nothing, expected a YAML file; --help says more");
  request.config = words[0];
  if (!std::filesystem::exists(request.config)) {
    const std::string nearest = ruq::nearest_name(words[0], verbs);
    ruq::fail("CONFIG: found no file '{}', expected a YAML file{}", words[0],
              nearest.empty() ? "" : ", did you mean '" + nearest + "'?");
  }
  request.overrides.assign(words.begin() + 1, words.end());
  if (map.contains("list")) return ruq::list(request);
  if (map.contains("status")) return ruq::print_status(request);
  if (map.contains("print-config")) return ruq::print_config(request);
  if (map.contains("slurm")) {
    const std::string how = map["slurm"].as<std::string>();
    if (how != "submit" && how != "print") ruq::fail("--slurm: found '{}', expected print", how);
    return ruq::slurm(request, how == "submit");
  }
  if (verb == "dump") return ruq::dump(request);
  return verb == "verify" ? ruq::verify(request) : ruq::run(request);
}

int start(int argc, char** argv) {
  const po::options_description visible = options();
  po::options_description all;
  // `id`: what a worker must find under the number of its trial.
  all.add(visible).add_options()("words", po::value<std::vector<std::string>>())(
      "id", po::value<std::string>()->default_value(""));
  po::positional_options_description positions;
  positions.add("words", -1);
  po::variables_map map;
  po::store(po::command_line_parser(argc, argv).options(all).positional(positions).run(), map);
  po::notify(map);
  if (map.contains("help")) {
    std::cout << kUsage << "\n" << visible << "\n" << ruq::options_reference();
    return 0;
  }
  if (map.contains("verbose")) ruq::set_verbosity(spdlog::level::debug);
  if (map.contains("quiet")) ruq::set_verbosity(spdlog::level::warn);
  ruq::Request request;
  request.program = argv[0];
  request.id = map["id"].as<std::string>();
  request.out = map["out"].as<std::string>();
  request.jobs = map["jobs"].as<ruq::Index>();
  request.threads = map["threads"].as<ruq::Index>();
  request.force = map.contains("force");
  request.any_arithmetic = map.contains("any-arithmetic");
  request.figures = !map.contains("no-figures");
  if (map.contains("only")) request.only = map["only"].as<std::vector<std::string>>();
  if (map.contains("trial")) request.trial = map["trial"].as<ruq::Index>();
  const std::vector<std::string> words = map.contains("words")
                                             ? map["words"].as<std::vector<std::string>>()
                                             : std::vector<std::string>();
  return dispatch(map, std::move(request), words);
}

}  // namespace

int main(int argc, char** argv) {
  ruq::keep_freed_memory();
  try {
    return start(argc, argv);
  } catch (const std::exception& problem) {
    std::cerr << "runexp: " << problem.what() << "\n";
    return 2;
  }
}
