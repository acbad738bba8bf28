#include "ruquant/learn/psot.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "support/errors.hpp"
#include "support/laws.hpp"

namespace ruq::test {
namespace {

std::vector<Matrix<double>> blocks_of(Index count, Index width) {
  std::vector<Matrix<double>> blocks;
  for (Index b = 0; b < count; ++b) {
    blocks.push_back(gaussian(width, width, "block" + std::to_string(b)) /
                     std::sqrt(double(width)));
  }
  return blocks;
}

// The loss from its definition, entry by entry.
double plain_loss(const Matrix<double>& x, const std::vector<Matrix<double>>& blocks,
                  const std::vector<bool>& outlier, const PsotOptions& options) {
  const Index d = blocks[0].rows();
  double squares = 0;
  for (Index t = 0; t < x.rows(); ++t) {
    std::vector<double> size;
    double total = 0;
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      Vector<double> y = blocks[b].transpose() * x.row(t).segment(Index(b) * d, d).transpose();
      if (options.subtract_mean) y.array() -= y.sum() / double(d);
      for (const double value : y) {
        size.push_back(std::abs(value));
        total += std::exp(std::abs(value) / options.temperature);
      }
    }
    const double a = !outlier.empty() && outlier[std::size_t(t)] ? options.outlier_weight : 1;
    for (const double s : size) {
      squares += std::pow(a * s * std::exp(s / options.temperature) / total, 2);
    }
  }
  return std::sqrt(squares);
}

TEST_CASE("loss and gradient equal the definition and its finite differences") {
  const Matrix<double> x = 2 * gaussian(7, 12, "x", 1);
  const std::vector<bool> mask = {false, true, false, false, true, false, false};
  for (const Index count : {1, 2, 4}) {
    for (const bool mean : {true, false}) {
      for (const bool masked : {true, false}) {
        CAPTURE(count);
        CAPTURE(mean);
        CAPTURE(masked);
        const PsotOptions options{.temperature = 1.7, .subtract_mean = mean, .outlier_weight = 5};
        const std::vector<bool> outlier = masked ? mask : std::vector<bool>();
        auto blocks = blocks_of(count, 12 / count);
        const PsotLoss result = psot_loss(x, blocks, outlier, options);
        CHECK(result.loss ==
              doctest::Approx(plain_loss(x, blocks, outlier, options)).epsilon(1e-13));
        REQUIRE(std::ssize(result.gradient) == count);
        const double h = 1e-6;
        for (std::size_t b = 0; b < blocks.size(); ++b) {
          for (Index k = 0; k < blocks[b].size(); ++k) {
            double& entry = blocks[b].data()[k];
            const double kept = entry;
            entry = kept + h;
            const double ahead = psot_loss(x, blocks, outlier, options).loss;
            entry = kept - h;
            const double behind = psot_loss(x, blocks, outlier, options).loss;
            entry = kept;
            CHECK(std::abs(result.gradient[b].data()[k] - (ahead - behind) / (2 * h)) <
                  1e-6 * result.loss);
          }
        }
      }
    }
  }
}

TEST_CASE("a mask of every row multiplies the loss; an offset of a block costs nothing") {
  const Matrix<double> x = gaussian(6, 8, "x");
  const std::vector<Matrix<double>> identity(2, Matrix<double>::Identity(4, 4));
  const double loss = psot_loss(x, identity, {}).loss;
  CHECK(psot_loss(x, identity, std::vector<bool>(6, true)).loss ==
        doctest::Approx(30 * loss).epsilon(1e-13));
  Matrix<double> shifted = x;
  shifted.leftCols(4).array() += 3;
  shifted.rightCols(4).array() -= 1.5;
  CHECK(psot_loss(shifted, identity, {}).loss == doctest::Approx(loss).epsilon(1e-12));
  CHECK(psot_loss(shifted, identity, {}, {.subtract_mean = false}).loss > 1.2 * loss);
}

TEST_CASE("large entries do not overflow, zeros give no gradient") {
  const std::vector<Matrix<double>> one(1, Matrix<double>::Identity(3, 3));
  const Matrix<double> huge{{4000, 0, 0}};
  const PsotOptions plain{.subtract_mean = false};
  CHECK(psot_loss(huge, one, {}, plain).loss == doctest::Approx(4000));
  const PsotLoss zero = psot_loss(Matrix<double>::Zero(2, 3), one, {}, plain);
  CHECK(zero.loss == 0);
  CHECK(zero.gradient[0] == Matrix<double>::Zero(3, 3));
}

TEST_CASE("shapes that do not fit are refused") {
  const Matrix<double> x = gaussian(3, 8, "x");
  const auto blocks = blocks_of(2, 4);
  check_error([&] { psot_loss(x, {}, {}); }, {"PSOT", "no blocks"});
  check_error([&] { psot_loss(x, blocks_of(3, 4), {}); }, {"3 blocks", "4", "8"});
  check_error([&] { psot_loss(x, {blocks[0], gaussian(4, 5, "o")}, {}); }, {"4x5"});
  check_error([&] { psot_loss(x, blocks, {true}); }, {"3 rows", "1"});
  check_error([&] { psot_loss(x, blocks, {}, {.temperature = 0}); }, {"temperature"});
}

std::vector<Matrix<double>> noise(Index samples) {
  std::vector<Matrix<double>> all;
  for (Index s = 0; s < samples; ++s) all.push_back(gaussian(50, 20, "s" + std::to_string(s)));
  return all;
}

TEST_CASE("tokens that are massive in every sample are marked, and they alone") {
  auto samples = noise(6);
  for (std::size_t s = 0; s < samples.size(); ++s) {
    samples[s](0, 3) = 400;               // the first token, always
    samples[s](Index(10 + s), 7) = -300;  // another one, at a place of its own
  }
  const OutlierTokens found = outlier_tokens(samples);
  REQUIRE(found.mask.size() == 6);
  for (std::size_t s = 0; s < samples.size(); ++s) {
    for (std::size_t t = 0; t < 50; ++t) {
      CHECK(found.mask[s][t] == (t == 0 || t == 10 + s));
    }
  }
}

TEST_CASE("the threshold rises until few positions are marked") {
  const auto samples = noise(8);
  const OutlierTokens found = outlier_tokens(samples, {.settled = 0.02, .largest_share = 0.4});
  std::size_t any = 0;
  for (std::size_t t = 0; t < 50; ++t) {
    for (const auto& mask : found.mask) {
      if (!mask[t]) continue;
      ++any;
      break;
    }
  }
  CHECK(any < 20);
  CHECK(found.multiple > 3);
  CHECK(found.multiple < 8);
  CHECK(outlier_tokens(samples, {.largest_multiple = 2}).multiple == 2);
}

TEST_CASE("samples of different shapes are refused") {
  check_error([] { outlier_tokens({}); }, {"no samples"});
  check_error([] { outlier_tokens({gaussian(3, 4, "a"), gaussian(3, 5, "b")}); }, {"3x5", "3x4"});
}

}  // namespace
}  // namespace ruq::test
