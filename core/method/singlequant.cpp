// SingleQuant (arXiv 2511.22316; specification §1): closed-form rotations at every linear site, ART
// to share out massive entries and URT to make the entries uniform, both products of Givens
// rotations, applied online, as a Kronecker product where `layout` says so.
//
// No official code was found. Confirmed of the paper are the two rotations and that they are Givens
// products; the angle of ART and the online Kronecker form are reported by others. Which planes are
// turned, the token that represents a site, what each Kronecker factor is fitted to, the ramp that
// URT aims at, and all of what is done with several tokens or with massive tokens apart is derived
// here, and the plan says so; `mean_to_ones` is an addition of ours. For ablations
// `art` and `urt` switch the rotations, and `art_tokens` says which outliers ART sees.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "ruquant/base/error.hpp"
#include "ruquant/method/block_rotation.hpp"
#include "ruquant/method/common.hpp"
#include "ruquant/method/entries.hpp"
#include "ruquant/method/ruquant.hpp"
#include "ruquant/transform/kronecker.hpp"
#include "ruquant/transform/target_rotation.hpp"

namespace ruq {
namespace {

struct SingleQuantOptions {
  SmoothingOptions smoothing;
  QueryKeyOptions queries_keys{.rotation = "hadamard"};
  std::string layout = "kronecker";
  Index block_size = 128;  // B
  bool ragged = true;
  bool share_blocks = false;
  bool art = true;
  bool urt = true;
  std::string fit = "token";
  std::string representative = "peak";
  std::string art_form = "auto";
  Index steps = 127;  // K
  double crest = 1.2;
  std::string urt_form = "chain";
  Index sweeps = 3;
  Index procrustes_steps = 5;
  Index fit_tokens = 256;
  bool mean_to_ones = false;
  std::string art_tokens = "all";
  double massive_ratio = 5;
  std::string calibration = "float";
};

void bind_layout(Fields& fields, SingleQuantOptions& o) {
  fields.add_choice("layout", o.layout, {"kronecker", "block", "full"},
                    "a product of two factors (FlatQuant's sizes), blocks, or one map a site");
  fields.add("block_size", o.block_size, {.min = 2}, "B: channels of one block of `block`");
  fields.add("ragged", o.ragged, "allow a narrower last block");
  fields.add("share_blocks", o.share_blocks,
             "one map for all blocks of a site, or one map a block");
  fields.add("mean_to_ones", o.mean_to_ones,
             "add a reflection that makes the calibration mean equal in all channels (ours)");
}

void bind_fit(Fields& fields, SingleQuantOptions& o) {
  fields.add("art", o.art, "the alignment rotation");
  fields.add("urt", o.urt, "the uniformity rotation, after it");
  fields.add_choice(
      "art_tokens", o.art_tokens, {"all", "massive", "ordinary"},
      "tokens that ART is fitted to: all, those with massive entries or the others. With the "
      "last two URT is a second step with a representative of its own, chosen after "
      "ART: compare them with each other, and with `all` without URT (ours)");
  fields.add("massive_ratio", o.massive_ratio, {.min = 1, .max = 1e6},
             "a token is massive when its peak is this many times the median peak of the site");
  fields.add_choice("fit", o.fit, {"token", "tokens"},
                    "from one representative vector, or from several tokens by quartimax sweeps "
                    "(ART) and Procrustes steps to ramps (URT)");
  fields.add_choice("representative", o.representative, {"peak", "mean"},
                    "fit = token: the row with the largest |entry|, or the mean of every channel");
  fields.add_choice("art_form", o.art_form, {"auto", "greedy", "tree"},
                    "fit = token: the greedy chain (auto for blocks and full) or the whole tree "
                    "(auto for kronecker)");
  fields.add("steps", o.steps, {.min = 0, .max = 65536}, "K: most turns of a greedy chain");
  fields.add("crest", o.crest, {.min = 1, .max = 1000},
             "a greedy chain stops once the largest |entry| is this many times the rms");
  fields.add_choice("urt_form", o.urt_form, {"chain", "reflection"},
                    "fit = token: Givens chain or one Householder reflection to the ramp");
  fields.add("sweeps", o.sweeps, {.min = 0, .max = 100}, "fit = tokens: most quartimax sweeps");
  fields.add("procrustes_steps", o.procrustes_steps, {.min = 0, .max = 1000},
             "fit = tokens: most steps towards the ramps");
  fields.add("fit_tokens", o.fit_tokens, {.min = 1}, "fit = tokens: how many, evenly spaced");
}

// What of this plan is not the paper's, in the plan's own list.
void note_derived(const SingleQuantOptions& o, Plan& plan) {
  const bool several = o.fit == "tokens";
  if (o.art) {
    plan.note_fallback(several
                           ? "ART of several tokens: quartimax turns are derived, not the paper's"
                           : "ART: the angle is reported of the paper; planes and representative "
                             "are derived");
  }
  if (o.art && o.art_tokens != "all") {
    plan.note_fallback(
        fmt::format("ART of {} tokens: the split at {} times the median peak is derived",
                    o.art_tokens, o.massive_ratio));
  }
  if (o.urt && several) {
    plan.note_fallback("URT of several tokens: Procrustes steps to ramps are derived");
  } else if (o.urt && o.urt_form == "reflection") {
    plan.note_fallback("URT: one reflection to an equal-norm ramp is derived");
  } else if (o.urt) {
    plan.note_fallback(
        "URT: n-1 turns to an equal-norm ramp, 2(n-1) where those cannot, are derived");
  }
  if (o.layout == "kronecker" && (o.art || o.urt)) {
    plan.note_fallback(several ? "factors: the right one from the rows of all grids, then the left "
                                 "one from the columns, is derived"
                               : "factors: row and column of the peak for ART, leading singular "
                                 "vectors for URT, are derived");
  }
  if (o.layout != "kronecker" && (o.art || o.urt)) {
    plan.note_fallback(fmt::format("layout {}: the reported one is kronecker", o.layout));
  }
  if (!o.art && o.urt && !several) plan.note_fallback("URT: the representative is derived");
  if (o.mean_to_ones) plan.note_fallback("the reflection of the mean to ones is ours");
}

Vector<double> representative(const Matrix<double>& rows, const SingleQuantOptions& o) {
  if (o.representative == "mean") return rows.colwise().mean().transpose();
  Index peak = 0;
  rows.cwiseAbs().rowwise().maxCoeff().maxCoeff(&peak);
  return rows.row(peak).transpose();
}

Matrix<double> alignment_map(const Vector<double>& x, const SingleQuantOptions& o) {
  const bool tree = o.art_form == "tree" || (o.art_form == "auto" && o.layout == "kronecker");
  return align(x, {.tree = tree, .greedy = {.steps = o.steps, .crest = o.crest}}).to_matrix();
}

Matrix<double> uniformity_map(const Vector<double>& x, const SingleQuantOptions& o) {
  const Index n = x.size();
  if (n < 2) return Matrix<double>::Identity(n, n);
  if (o.urt_form == "chain") return uniformity_chain(x, ramp_target(x)).to_matrix();
  Transform<double> reflection(n);
  if (auto step = target_reflection(x, ramp_target(x))) reflection.append(*std::move(step));
  return reflection.to_matrix(n);
}

Matrix<double> map_of_token(Vector<double> x, const SingleQuantOptions& o) {
  Matrix<double> map = Matrix<double>::Identity(x.size(), x.size());
  if (o.art) {
    map = alignment_map(x, o);
    x = map.transpose() * x;
  }
  if (o.urt) map = product<double>(map, uniformity_map(x, o));
  return map;
}

// The map of rows [N, n] from all of them; they become rows·map.
Matrix<double> map_of_rows(Matrix<double>& rows, const SingleQuantOptions& o) {
  Matrix<double> map = Matrix<double>::Identity(rows.cols(), rows.cols());
  if (o.art) map = quartimax_sweeps(rows, {.sweeps = o.sweeps}).to_matrix();
  if (o.urt && rows.cols() > 1) {
    const Matrix<double> turn = procrustes_rotation(rows, {.iterations = o.procrustes_steps}).map;
    rows = product<double>(rows, turn);
    map = product<double>(map, turn);
  }
  return map;
}

// Evenly spaced tokens at unit length, so that each counts the same.
Matrix<double> fitted_tokens(const Matrix<double>& tensor, Index limit) {
  const Index count = std::min(limit, tensor.rows());
  Matrix<double> tokens(count, tensor.cols());
  for (Index i = 0; i < count; ++i) {
    tokens.row(i) = tensor.row(i * tensor.rows() / count).normalized();
  }
  return tokens;
}

Transform<double> block_site(Matrix<double> tensor, const SingleQuantOptions& o) {
  const bool several = o.fit == "tokens";
  if (several) tensor = fitted_tokens(tensor, o.fit_tokens);
  const Index block = o.layout == "full" ? tensor.cols() : o.block_size;
  const MapBuilder<double> build = [&](Matrix<double>& samples) {
    if (several) return map_of_rows(samples, o);
    Matrix<double> map = map_of_token(representative(samples, o), o);
    samples = product<double>(samples, map);
    return map;
  };
  return block_rotation(tensor, block_layout(tensor.cols(), block, o.ragged),
                        {.permutations = 0, .share_blocks = o.share_blocks}, build);
}

Kronecker<double> token_factors(const Vector<double>& x, const KroneckerSizes& sizes,
                                const SingleQuantOptions& o) {
  Matrix<double> left = Matrix<double>::Identity(sizes.left, sizes.left);
  Matrix<double> right = Matrix<double>::Identity(sizes.right, sizes.right);
  Matrix<double> grid = x.reshaped<Eigen::RowMajor>(sizes.left, sizes.right);
  if (o.art) {
    const GridVectors peak = peak_vectors(x, sizes.left);
    left = alignment_map(peak.left, o);
    right = alignment_map(peak.right, o);
    grid = (left.transpose() * grid * right).eval();
  }
  if (o.urt) {
    const GridVectors leading = leading_vectors(grid.reshaped<Eigen::RowMajor>(), sizes.left);
    left = product<double>(left, uniformity_map(leading.left, o));
    right = product<double>(right, uniformity_map(leading.right, o));
  }
  return kronecker_step({std::move(left), {}}, {std::move(right), {}});
}

// The right factor from the rows of every token's grid, then the left one from the turned columns.
Kronecker<double> tokens_factors(const Matrix<double>& tokens, const KroneckerSizes& sizes,
                                 const SingleQuantOptions& o) {
  Matrix<double> rows = tokens.reshaped<Eigen::RowMajor>(tokens.rows() * sizes.left, sizes.right);
  Matrix<double> right = map_of_rows(rows, o);
  Matrix<double> columns(tokens.rows() * sizes.right, sizes.left);
  for (Index t = 0; t < tokens.rows(); ++t) {
    columns.middleRows(t * sizes.right, sizes.right) =
        rows.middleRows(t * sizes.left, sizes.left).transpose();
  }
  Matrix<double> left = map_of_rows(columns, o);
  return kronecker_step({std::move(left), {}}, {std::move(right), {}});
}

Transform<double> kronecker_site(const Matrix<double>& tensor, const SingleQuantOptions& o) {
  const KroneckerSizes sizes = flatquant_sizes(tensor.cols());
  Transform<double> transform(tensor.cols());
  transform.append(o.fit == "tokens" ? tokens_factors(fitted_tokens(tensor, o.fit_tokens), sizes, o)
                                     : token_factors(representative(tensor, o), sizes, o));
  return transform;
}

Transform<double> fitted(const Matrix<double>& tensor, const SingleQuantOptions& o) {
  return o.layout == "kronecker" ? kronecker_site(tensor, o) : block_site(tensor, o);
}

// The rows of massive or of ordinary tokens; nothing where there are none.
Matrix<double> rows_of_art(const Matrix<double>& tensor, const SingleQuantOptions& o) {
  const Vector<double> peaks = tensor.cwiseAbs().rowwise().maxCoeff();
  std::vector<double> sorted(peaks.begin(), peaks.end());
  const auto middle = sorted.begin() + std::ssize(sorted) / 2;
  std::nth_element(sorted.begin(), middle, sorted.end());
  const double limit = o.massive_ratio * *middle;
  Matrix<double> chosen(tensor.rows(), tensor.cols());
  Index count = 0;
  for (Index t = 0; t < tensor.rows(); ++t) {
    if ((peaks(t) > limit) == (o.art_tokens == "massive")) chosen.row(count++) = tensor.row(t);
  }
  return chosen.topRows(count);
}

// ART of some of the tokens, then URT of all.
Transform<double> fitted_apart(Matrix<double> tensor, const Site& site,
                               const SingleQuantOptions& options, Plan& plan) {
  SingleQuantOptions part = options;
  part.urt = false;
  const Matrix<double> rows = rows_of_art(tensor, options);
  if (rows.rows() == 0) {
    plan.note_fallback(
        fmt::format("{}: no {} tokens, ART of all", to_string(site), options.art_tokens));
  }
  const Transform<double> alignment = fitted(rows.rows() > 0 ? rows : tensor, part);
  if (!options.urt) return alignment;
  alignment.apply(tensor);
  part.art = false;
  part.urt = true;
  return alignment.then(fitted(tensor, part));
}

void note_sizes(const Site& site, Index width, Plan& plan) {
  if (has_flatquant_sizes(width)) return;
  const KroneckerSizes sizes = flatquant_sizes(width);
  plan.note_fallback(fmt::format("{}: FlatQuant's rule has no factors of {}, {}x{} instead",
                                 to_string(site.kind), width, sizes.left, sizes.right));
}

class SingleQuant final : public MethodBase<SingleQuant> {
 public:
  void bind(Fields& fields) override {
    ruq::bind(fields, options_.smoothing);
    ruq::bind(fields, options_.queries_keys);
    bind_layout(fields, options_);
    bind_fit(fields, options_);
    fields.add_choice("calibration", options_.calibration, {"mean", "samples", "float"},
                      "mean sequence or samples through the quantized prefix, or float samples");
  }
  bool is_random() const override { return false; }

  void check(const ModelConfig& config, const QuantSettings& quant) const override {
    MethodBase::check(config, quant);
    if (options_.layout == "block") check_block_size(config, options_.block_size, options_.ragged);
  }

  template <class S>
  Plan draw_up(CalibrationSession<S>& session, const QuantSettings& quant, const Stream&) const {
    Plan plan = Plan::identity("singlequant", session.config().layers, quant);
    smooth(session, options_.smoothing, plan);
    rotate_queries_and_keys(session.config(), options_.queries_keys, plan);
    note_derived(options_, plan);
    session.walk(calibration_stream(options_.calibration), plan,
                 [&](const Site& site, const Matrix<S>& tensor, Plan& drawn) {
                   if (options_.layout == "kronecker") note_sizes(site, tensor.cols(), drawn);
                   rotate_site(site, tensor.template cast<double>(), drawn);
                 });
    return plan;
  }

 private:
  // Appends the rotation of a site to what already runs online there (smoothing that was not
  // folded).
  void rotate_site(const Site& site, Matrix<double> y, Plan& plan) const {
    Transform<double>& online = plan.layers[static_cast<std::size_t>(site.layer)][site.kind].online;
    online.apply(y);
    const bool apart = options_.art && options_.art_tokens != "all";
    const Transform<double> rotation =
        apart ? fitted_apart(y, site, options_, plan) : fitted(y, options_);
    online = online.then(rotation);
    if (!options_.mean_to_ones) return;
    Matrix<double> mean = y.colwise().mean();
    rotation.apply(mean);
    if (auto step = reflection_to_ones(mean.row(0).transpose())) online.append(*std::move(step));
  }

  SingleQuantOptions options_;
};

}  // namespace

std::unique_ptr<Method> make_singlequant() { return std::make_unique<SingleQuant>(); }

}  // namespace ruq
