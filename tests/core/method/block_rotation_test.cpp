#include "ruquant/method/block_rotation.hpp"

#include <doctest/doctest.h>

#include "support/laws.hpp"

namespace ruq::test {
namespace {

// Notes what it was shown, and answers with a rotation of its own.
struct Recorder {
  std::vector<Matrix<double>> seen;
  Stream draws{1, "recorder"};

  MapBuilder<double> builder() {
    return [this](Matrix<double>& samples) {
      seen.push_back(samples);
      const Index n = samples.cols();
      const Vector<double> v = draws.normal(n, 1).col(0).normalized();
      const Matrix<double> map = Matrix<double>::Identity(n, n) - 2 * v * v.transpose();
      samples = samples * map;
      return map;
    };
  }
};

BlockRotationOptions options(Index permutations, bool zigzag, bool share) {
  BlockRotationOptions result;
  result.permutations = permutations;
  result.partition = zigzag ? "zigzag" : "contiguous";
  result.share_blocks = share;
  return result;
}

TEST_CASE("shared maps see the blocks of all tokens, row token·count + block") {
  const Matrix<double> x = gaussian(3, 10, "tensor");
  Matrix<double> moved = x;
  Recorder recorder;
  block_rotation(moved, block_layout(10, 4, true), options(0, true, true), recorder.builder());
  REQUIRE(recorder.seen.size() == 2);
  REQUIRE(recorder.seen[0].rows() == 6);
  for (Index t = 0; t < 3; ++t) {
    CHECK(recorder.seen[0].row(2 * t) == x.row(t).head(4));
    CHECK(recorder.seen[0].row(2 * t + 1) == x.row(t).segment(4, 4));
  }
  CHECK(recorder.seen[1] == x.rightCols(2));
}

TEST_CASE("separate maps see one block each") {
  const Matrix<double> x = gaussian(3, 10, "tensor");
  Matrix<double> moved = x;
  Recorder recorder;
  block_rotation(moved, block_layout(10, 4, true), options(0, true, false), recorder.builder());
  REQUIRE(recorder.seen.size() == 3);
  CHECK(recorder.seen[0] == x.leftCols(4));
  CHECK(recorder.seen[1] == x.middleCols(4, 4));
  CHECK(recorder.seen[2] == x.rightCols(2));
}

TEST_CASE("the tensor becomes tensor·transform, and each round sees the one before") {
  for (const bool share : {true, false}) {
    for (const bool zigzag : {true, false}) {
      for (const Index width : {8, 12, 22}) {
        const Matrix<double> x = gaussian(5, width, "tensor", 1);
        Matrix<double> moved = x;
        Recorder recorder;
        const BlockLayout layout = block_layout(width, 4, true);
        const Transform<double> transform =
            block_rotation(moved, layout, options(2, zigzag, share), recorder.builder());
        CHECK(relative_error(moved, (x * dense_matrix(transform, width)).eval()) < 1e-12);
        CHECK(transform.steps().size() == (zigzag ? 5 : 3));
        check_transform_laws(transform, width);
        // The first samples of the second round are the tensor after the first map and deal.
        Transform<double> first(width);
        first.append(transform.steps()[0]);
        if (zigzag) first.append(transform.steps()[1]);
        Matrix<double> after = x;
        first.apply(after);
        CHECK(relative_error(recorder.seen[recorder.seen.size() / 3].row(0), after.row(0).head(4)) <
              1e-12);
      }
    }
  }
}

}  // namespace
}  // namespace ruq::test
