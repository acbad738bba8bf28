// The list of methods. Adding one is one line here, one file beside this one, one test, one config.
#include <algorithm>

#include "ruquant/base/error.hpp"
#include "ruquant/method/entries.hpp"

namespace ruq {
namespace {

struct Entry {
  MethodInfo info;
  std::unique_ptr<Method> (*make)();
};

const std::vector<Entry>& entries() {
  static const std::vector<Entry> all = {
      {{"rtn", "round to nearest, no transform", 1}, make_rtn},
      {{"smoothquant", "per-channel scales (arXiv 2211.10438)", 1}, make_smoothquant},
      {{"omniquant", "scales and learned weight clipping (arXiv 2308.13137)", 2}, make_omniquant},
      {{"hadamard", "randomized Hadamard over the whole width of every site", 1}, make_hadamard},
      {{"householder", "one block map of reflections towards uniform targets", 1},
       make_householder},
      {{"givens", "one block map of plane rotations towards uniform targets", 1}, make_givens},
      {{"quarot", "Hadamard basis of the residual stream (arXiv 2404.00456)", 1}, make_quarot},
      {{"spinquant", "learned basis of the residual stream and of values (arXiv 2405.16406)", 1},
       make_spinquant},
      {{"singlequant", "closed-form Givens rotations, alignment and uniformity (arXiv 2511.22316)",
        1},
       make_singlequant},
      {{"learned_rotation", "one block map a site by Cayley SGD, to compare objectives", 1},
       make_learned_rotation},
      {{"infoquant", "peak-suppressing rotations learned site by site (arXiv 2605.26175)", 1},
       make_infoquant},
      {{"duquant", "searched block rotations and zigzag (arXiv 2406.01721)", 1}, make_duquant},
      {{"flatquant", "learned Kronecker maps, scales and clips (arXiv 2410.09426)", 1},
       make_flatquant},
      {{"ruquant",
        "block maps towards uniform targets, zigzag, global reflection "
        "(arXiv 2604.04013)",
        1},
       make_ruquant},
  };
  return all;
}

const Entry& find(const std::string& name) {
  const auto& all = entries();
  const auto found = std::find_if(all.begin(), all.end(),
                                  [&](const Entry& entry) { return entry.info.name == name; });
  if (found != all.end()) return *found;
  std::vector<std::string> names;
  for (const Entry& entry : all) names.push_back(entry.info.name);
  fail("unknown method '{}'{}", name, suggestion(name, names));
}

}  // namespace

const std::vector<MethodInfo>& methods() {
  static const std::vector<MethodInfo> infos = [] {
    std::vector<MethodInfo> all;
    for (const Entry& entry : entries()) all.push_back(entry.info);
    return all;
  }();
  return infos;
}

const MethodInfo& method_info(const std::string& name) { return find(name).info; }

std::unique_ptr<Method> make_method(const std::string& name) { return find(name).make(); }

}  // namespace ruq
