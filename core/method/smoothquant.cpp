// SmoothQuant (arXiv 2211.10438): per-channel scales alone, folded wherever that is possible.
#include "ruquant/method/common.hpp"
#include "ruquant/method/entries.hpp"

namespace ruq {
namespace {

class SmoothQuant final : public MethodBase<SmoothQuant> {
 public:
  void bind(Fields& fields) override {
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
  SmoothingOptions options_{.alpha = 0.5, .grouped = "online"};
  QueryKeyOptions query_key_;
};

}  // namespace

std::unique_ptr<Method> make_smoothquant() { return std::make_unique<SmoothQuant>(); }

}  // namespace ruq
