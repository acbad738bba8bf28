#include "ruquant/transform/hadamard.hpp"

#include <array>
#include <cmath>
#include <map>
#include <mutex>
#include <string_view>

#include "ruquant/base/error.hpp"

namespace ruq {
namespace {

// The search order of the QuaRot code; the first base that leaves a power of two wins.
constexpr std::array<Index, 12> kBases = {172, 156, 140, 108, 60, 52, 36, 28, 40, 20, 12, 1};

bool is_power_of_two(Index n) { return n > 0 && (n & (n - 1)) == 0; }

// Legendre symbol of r modulo the prime q: 0, 1 for squares, -1 for the rest.
Vector<double> legendre(Index q) {
  Vector<double> chi = Vector<double>::Constant(q, -1);
  for (Index x = 1; x < q; ++x) chi(x * x % q) = 1;
  chi(0) = 0;
  return chi;
}

// Paley I for a prime q = 3 mod 4: order q + 1, a bordered circulant.
Matrix<double> paley_first(Index q) {
  const Vector<double> chi = legendre(q);
  Matrix<double> h(q + 1, q + 1);
  h.row(0).setConstant(-1);
  h.col(0).setConstant(1);
  for (Index r = 0; r < q; ++r) {
    for (Index c = 0; c < q; ++c) h(r + 1, c + 1) = r == c ? 1 : -chi((c - r + q) % q);
  }
  return h;
}

// Paley II for a prime q = 1 mod 4: order 2(q + 1), from the symmetric conference matrix S.
Matrix<double> paley_second(Index q) {
  const Vector<double> chi = legendre(q);
  Matrix<double> s = Matrix<double>::Ones(q + 1, q + 1);
  for (Index r = 0; r < q; ++r) {
    for (Index c = 0; c < q; ++c) s(r + 1, c + 1) = chi((c - r + q) % q);
  }
  s(0, 0) = 0;
  const Matrix<double> one = Matrix<double>::Identity(q + 1, q + 1);
  Matrix<double> h(2 * (q + 1), 2 * (q + 1));
  h << s + one, s - one, s - one, -s - one;
  return h;
}

Matrix<double> doubled(const Matrix<double>& h) {
  Matrix<double> result(2 * h.rows(), 2 * h.cols());
  result << h, h, h, -h;
  return result;
}

Matrix<double> circulant(std::string_view first_row) {
  const Index n = std::ssize(first_row);
  Matrix<double> result(n, n);
  for (Index r = 0; r < n; ++r) {
    for (Index c = 0; c < n; ++c) {
      result(r, c) = first_row[static_cast<std::size_t>((c - r + n) % n)] == '+' ? 1 : -1;
    }
  }
  return result;
}

// Williamson's array over four symmetric circulants.
Matrix<double> williamson(const std::array<std::string_view, 4>& first_rows) {
  const Matrix<double> a = circulant(first_rows[0]);
  const Matrix<double> b = circulant(first_rows[1]);
  const Matrix<double> c = circulant(first_rows[2]);
  const Matrix<double> d = circulant(first_rows[3]);
  RUQ_CHECK(b.rows() == a.rows() && c.rows() == a.rows() && d.rows() == a.rows(),
            "circulants of {}, {}, {} and {}", a.rows(), b.rows(), c.rows(), d.rows());
  Matrix<double> h(4 * a.rows(), 4 * a.cols());
  h << a, b, c, d, -b, a, -d, c, -c, d, a, -b, -d, -c, b, a;
  return h;
}

constexpr std::array<std::string_view, 4> kWilliamson13 = {"+-+--++++--+-", "+---++++++---",
                                                           "++-+--++--+-+", "+----+--+----"};
constexpr std::array<std::string_view, 4> kWilliamson39 = {
    "+++--+-+-----+--++----++--+-----+-+--++", "++++---+--++----+-+--+-+----++--+---+++",
    "+++--++-+---+-+--+----+--+-+---+-++--++", "+---++-+-+-----+++-++-+++-----+-+-++---"};
constexpr std::array<std::string_view, 4> kWilliamson43 = {
    "+---++--++++-+-+++-++--++-+++-+-++++--++---", "++-++++++----+-+--++-++-++--+-+----++++++-+",
    "+++-+-++--+-+-++++-+----+-++++-+-+--++-+-++", "++---++++-+--+--++--------++--+--+-++++---+"};

Matrix<double> build_base(Index k) {
  switch (k) {
    case 1:
      return Matrix<double>::Ones(1, 1);
    case 12:
    case 20:
    case 60:
    case 108:
    case 140:
      return paley_first(k - 1);
    case 28:
    case 36:
      return paley_second(k / 2 - 1);
    case 40:
      return doubled(paley_first(19));
    case 52:
      return williamson(kWilliamson13);
    case 156:
      return williamson(kWilliamson39);
    case 172:
      return williamson(kWilliamson43);
    default:
      fail("no Hadamard base matrix of order {}", k);
  }
}

// In-place fast Walsh-Hadamard transform of one run of 2^m values, unnormalised.
template <class S>
void walsh_hadamard(S* x, Index n) {
  for (Index half = 1; half < n; half *= 2) {
    for (Index begin = 0; begin < n; begin += 2 * half) {
      S* low = x + begin;
      S* high = low + half;
      for (Index i = 0; i < half; ++i) {
        const S a = low[i];
        const S b = high[i];
        low[i] = a + b;
        high[i] = a - b;
      }
    }
  }
}

// Bases are few and small; each is built and cast once a process.
template <class S>
const Matrix<S>& cached_base(Index k) {
  static std::mutex mutex;
  static std::map<Index, Matrix<S>> cache;
  const std::lock_guard lock(mutex);
  const auto found = cache.find(k);
  if (found != cache.end()) return found->second;
  return cache.emplace(k, build_base(k).template cast<S>()).first->second;
}

}  // namespace

bool hadamard_exists(Index n) {
  for (const Index base : kBases) {
    if (n % base == 0 && is_power_of_two(n / base)) return true;
  }
  return false;
}

HadamardOrder hadamard_order(Index n) {
  for (const Index base : kBases) {
    if (n % base == 0 && is_power_of_two(n / base)) return {base, n / base};
  }
  fail("no Hadamard matrix of order {} can be built; orders are 2^m times one of {}", n,
       fmt::join(kBases, ", "));
}

Matrix<double> hadamard_base(Index k) { return cached_base<double>(k); }

template <class S>
void hadamard_in_place(MatrixView<S> x, Index n, bool transposed) {
  const auto [base, power] = hadamard_order(n);
  RUQ_CHECK(x.cols() % n == 0, "{} channels in runs of {}", x.cols(), n);
  const Matrix<S>& had = cached_base<S>(base);
  const S scale = S(1) / std::sqrt(static_cast<S>(n));
  Matrix<S> scratch(base, power);
  for (Index t = 0; t < x.rows(); ++t) {
    for (Index begin = 0; begin < x.cols(); begin += n) {
      Eigen::Map<Matrix<S>> grid(&x(t, begin), base, power);
      for (Index r = 0; r < base; ++r) walsh_hadamard(grid.row(r).data(), power);
      if (base == 1) {
        grid *= scale;
      } else if (transposed) {
        scratch.noalias() = had.transpose() * grid;
        grid = scratch * scale;
      } else {
        scratch.noalias() = had * grid;
        grid = scratch * scale;
      }
    }
  }
}

Index largest_power_of_two(Index width, Index limit) {
  Index power = 1;
  while (2 * power <= limit && width % (2 * power) == 0) power *= 2;
  return power;
}

template void hadamard_in_place<float>(MatrixView<float>, Index, bool);
template void hadamard_in_place<double>(MatrixView<double>, Index, bool);

}  // namespace ruq
