// Round to nearest: no transform at all, unless queries and keys are asked to be rotated. The floor
// of every comparison.
#include "ruquant/method/common.hpp"
#include "ruquant/method/entries.hpp"

namespace ruq {
namespace {

class Rtn final : public MethodBase<Rtn> {
 public:
  void bind(Fields& fields) override { ruq::bind(fields, query_key_); }
  bool is_random() const override { return false; }
  template <class S>
  Plan draw_up(CalibrationSession<S>& session, const QuantSettings& quant, const Stream&) const {
    Plan plan = Plan::identity("rtn", session.config().layers, quant);
    rotate_queries_and_keys(session.config(), query_key_, plan);
    return plan;
  }

 private:
  QueryKeyOptions query_key_;
};

}  // namespace

std::unique_ptr<Method> make_rtn() { return std::make_unique<Rtn>(); }

}  // namespace ruq
