// SmoothQuant (arXiv 2211.10438): per-channel scales alone, folded wherever that is possible. The
// preset `duquant` is the baseline of RUQuant's and DuQuant's codes, which smooth every site by one
// weight of it; `official` smooths behind the norms alone, by all weights there.
#include "ruquant/method/common.hpp"
#include "ruquant/method/entries.hpp"

namespace ruq {
namespace {

class SmoothQuant final : public MethodBase<SmoothQuant> {
 public:
  void bind(Fields& fields) override {
    fields.add_preset(
        "preset", preset_, {"duquant", "official"},
        "every site, as RUQuant's and DuQuant's codes, or behind the norms alone, as "
        "SmoothQuant's own",
        [this](const std::string& name) { options_.behind_norms = name == "official"; });
    ruq::bind(fields, options_);
    ruq::bind(fields, query_key_);
  }
  bool is_random() const override { return false; }
  template <class S>
  Plan draw_up(CalibrationSession<S>& session, const QuantSettings& quant, const Stream&) const {
    Plan plan = Plan::identity("smoothquant", session.config().layers, quant);
    smooth(session, options_, plan);
    rotate_queries_and_keys(session.config(), query_key_, plan);
    return plan;
  }

 private:
  std::string preset_ = "duquant";
  SmoothingOptions options_{.alpha = 0.5, .grouped = "online"};
  QueryKeyOptions query_key_;
};

}  // namespace

std::unique_ptr<Method> make_smoothquant() { return std::make_unique<SmoothQuant>(); }

}  // namespace ruq
