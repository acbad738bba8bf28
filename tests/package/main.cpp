// Rounds a matrix on a fitted grid and looks up a method, through the installed headers alone.
#include <cstdio>

#include "ruquant/method/method.hpp"
#include "ruquant/quant/quantizer.hpp"

int main() {
  ruq::Matrix<double> x(1, 4);
  x << 0, 1, 2, 3;
  const ruq::QuantSpec spec{.bits = 2};
  ruq::round_to_grid(x, ruq::fit_grid(x, spec));
  const bool exact = x(0, 0) == 0 && x(0, 3) == 3;
  const bool known = ruq::method_info("ruquant").name == "ruquant";
  std::printf("%s\n", exact && known ? "ok" : "wrong");
  return exact && known ? 0 : 1;
}
