// Round to nearest: no transform at all. The floor of every comparison.
#include "ruquant/method/common.hpp"
#include "ruquant/method/entries.hpp"

namespace ruq {
namespace {

class Rtn final : public MethodBase<Rtn> {
 public:
  void bind(Fields&) override {}
  bool is_random() const override { return false; }
  template <class S>
  Plan draw_up(CalibrationSession<S>& session, const QuantSettings& quant, const Stream&) const {
    return Plan::identity("rtn", session.config().layers, quant);
  }
};

}  // namespace

std::unique_ptr<Method> make_rtn() { return std::make_unique<Rtn>(); }

}  // namespace ruq
