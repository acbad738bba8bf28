// A method draws up a plan; that is all it does. Methods differ only in the plan they return, so no
// method has an inference path of its own.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ruquant/base/fields.hpp"
#include "ruquant/base/rng.hpp"
#include "ruquant/model/calibration.hpp"
#include "ruquant/quant/plan.hpp"

namespace ruq {

class Method {
 public:
  virtual ~Method() = default;
  /// Lists the options, those of every method first. References stay valid while the method lives.
  virtual void bind(Fields& fields) = 0;
  /// Error if the options cannot work on this model: block wider than a site, group sizes, ...
  virtual void check(const ModelConfig& config, const QuantSettings& quant) const = 0;
  /// True when the plan depends on the seed.
  virtual bool is_random() const = 0;
  /// True when the plan cannot be drawn up on dumped activations of single sites.
  virtual bool needs_model() const { return false; }
  /// True when it learns from windows of `learning_tokens` tokens, or judges on such.
  virtual bool cuts_windows() const { return needs_model(); }
  /// Raised where a fix changed the numbers under these options alone; the rest of the results
  /// stand (MethodInfo::result_version is for all).
  virtual int revision(const QuantSettings&) const { return 0; }
  /// The plan for a model. Deterministic in (session, options, quant, the stream's seed).
  virtual Plan plan(CalibrationSession<float>& session, const QuantSettings& quant,
                    const Stream& stream) const = 0;
  virtual Plan plan(CalibrationSession<double>& session, const QuantSettings& quant,
                    const Stream& stream) const = 0;
};

struct MethodInfo {
  std::string name;
  std::string about;       ///< one line with the source
  int result_version = 1;  ///< raised when a fix changes the numbers of a plan
};

/// All methods, in the order of the tables.
const std::vector<MethodInfo>& methods();
const MethodInfo& method_info(const std::string& name);  ///< Error with the nearest name
std::unique_ptr<Method> make_method(const std::string& name);

}  // namespace ruq
