// Comparison of one quantized tensor with its reference: step, zero points, codes and values.
#pragma once

#include <string>

#include "ruquant/quant/quantizer.hpp"
#include "support/oracle.hpp"

namespace ruq::test {

/// Names of the reference datasets and how near to them the numbers must be. Codes are compared
/// where the fixture has them; zero points and codes exactly.
struct QuantizedNames {
  std::string scale, zero, codes, dequant;
  double scale_tolerance = 0, dequant_tolerance = 0;
};

/// "<prefix>scale", "<prefix>zp", "<prefix>codes", "<prefix>dequant" at one tolerance.
inline QuantizedNames quantized_names(const std::string& prefix, double tolerance) {
  return {prefix + "scale",   prefix + "zp", prefix + "codes",
          prefix + "dequant", tolerance,     tolerance};
}

/// Steps or zero points [rows, groups] as the flat row-by-row list of the fixtures.
inline Vector<double> flat(const Matrix<double>& per_group) {
  return per_group.reshaped<Eigen::RowMajor>();
}

/// A dataset of any rank as rows of `cols` channels.
inline Matrix<double> rows_of(const OracleCase& c, const std::string& name, Index cols) {
  return c.vector(name).reshaped<Eigen::RowMajor>(c.vector(name).size() / cols, cols);
}

/// Quantizes `x` [rows, channels] by `spec` in all three ways that the program does: codes and
/// back, rounding on a fitted grid (weights), and fitting and rounding in one pass (activations).
inline void check_quantized(const OracleCase& c, const QuantizedNames& names,
                            const Matrix<double>& x, const QuantSpec& spec,
                            const RowClips<double>* clips = nullptr) {
  const Grid<double> grid = fit_grid(x, spec, clips);
  check_close(flat(grid.scale), c.vector(names.scale), names.scale_tolerance, names.scale);
  check_exact(flat(grid.zero), c.vector(names.zero), names.zero);
  const Codes codes = encode(x, grid);
  if (c.has(names.codes)) check_exact(codes, rows_of(c, names.codes, x.cols()), names.codes);

  const Matrix<double> expected = rows_of(c, names.dequant, x.cols());
  check_close(decode(codes, grid), expected, names.dequant_tolerance, names.dequant);
  Matrix<double> rounded = x;
  round_to_grid(rounded, grid);
  check_close(rounded, expected, names.dequant_tolerance, names.dequant + ", rounded to the grid");
  if (clips != nullptr) return;
  rounded = x;
  fake_quantize(rounded, spec);
  check_close(rounded, expected, names.dequant_tolerance, names.dequant + ", in one pass");
}

}  // namespace ruq::test
