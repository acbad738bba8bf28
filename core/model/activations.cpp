#include "ruquant/model/activations.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>
#include <utility>

#include "ruquant/base/error.hpp"
#include "ruquant/io/tensor_store.hpp"

namespace ruq {
namespace {

const std::string kFormat = "ruquant-activations";
constexpr std::int64_t kFormatVersion = 1;
// Of any number in the shape of a model: more layers than that would fill the memory with nothing.
constexpr Index kLargestShape = Index{1} << 17;

// `count` rows of `tensor`, evenly spaced and in order; all of them when there are fewer.
Matrix<float> spaced_rows(const Matrix<float>& tensor, Index count) {
  const Index kept = std::min(count, tensor.rows());
  Matrix<float> rows(kept, tensor.cols());
  for (Index i = 0; i < kept; ++i) rows.row(i) = tensor.row(i * tensor.rows() / kept);
  return rows;
}

Matrix<float> stacked(const std::vector<Matrix<float>>& parts) {
  Index rows = 0;
  for (const auto& part : parts) rows += part.rows();
  Matrix<float> all(rows, parts.front().cols());
  Index at = 0;
  for (const auto& part : parts) {
    all.middleRows(at, part.rows()) = part;
    at += part.rows();
  }
  return all;
}

// Shapes of the model in a fixed order, for writing and reading.
template <class Config, class Visit>
void for_each_shape(Config& config, const Visit& visit) {
  visit("layers", config.layers);
  visit("width", config.width);
  visit("mlp_width", config.mlp_width);
  visit("heads", config.heads);
  visit("kv_heads", config.kv_heads);
  visit("head_width", config.head_width);
}

// The linear site of the model whose name this is.
std::optional<Site> find_site(const std::string& name, const ModelConfig& config) {
  constexpr std::string_view kBefore = "layers.";
  if (!name.starts_with(kBefore)) return std::nullopt;
  Index layer = -1;
  std::from_chars(name.data() + kBefore.size(), name.data() + name.size(), layer);
  if (layer < 0 || layer >= config.layers) return std::nullopt;
  for (const SiteKind kind : kLinearSites) {
    if (to_string(Site{layer, kind}) == name) return Site{layer, kind};
  }
  return std::nullopt;
}

bool has_format(const TensorReader& file) {
  return file.has_attribute("", "format") && file.text_attribute("", "format") == kFormat;
}

ModelConfig load_shape(const TensorReader& file) {
  ModelConfig config;
  for_each_shape(config, [&](const char* name, Index& value) {
    value = file.integer_attribute("", name);
    if (value >= 1 && value <= kLargestShape) return;
    fail("{}: {}: found {}, expected 1 to {}", file.path().string(), name, value, kLargestShape);
  });
  if (config.heads % config.kv_heads != 0) {
    fail("{}: kv_heads: found {}, expected a divisor of the {} heads", file.path().string(),
         config.kv_heads, config.heads);
  }
  return config;
}

template <class S>
Vector<S> finite_vector(const TensorReader& file, const std::string& name, Index size) {
  Vector<S> vector = file.vector<S>(name);
  if (vector.size() != size) {
    fail("{}: {}: found {} values, expected {}", file.path().string(), name, vector.size(), size);
  }
  if (!vector.allFinite()) {
    fail("{}: {}: found NaN or infinity, expected finite values", file.path().string(), name);
  }
  return vector;
}

void check_finite(const TensorReader& file, const std::string& name, const Matrix<float>& matrix) {
  for (Index r = 0; r < matrix.rows(); ++r) {
    if (matrix.row(r).allFinite()) continue;
    fail("{}: {}: found NaN or infinity in row {}, expected finite values", file.path().string(),
         name, r);
  }
}

// Rows of activations, at least one.
Matrix<float> finite_rows(const TensorReader& file, const std::string& name, Index channels) {
  Matrix<float> rows = file.matrix<float>(name);
  if (rows.rows() < 1 || rows.cols() != channels) {
    fail("{}: {}: found {} rows of {} channels, expected at least one of {}", file.path().string(),
         name, rows.rows(), rows.cols(), channels);
  }
  check_finite(file, name, rows);
  return rows;
}

Matrix<float> finite_weight(const TensorReader& file, const std::string& name, Index out,
                            Index in) {
  Matrix<float> weight = file.matrix<float>(name);
  if (weight.rows() != out || weight.cols() != in) {
    fail("{}: {}: found {}x{}, expected {}x{}", file.path().string(), name, weight.rows(),
         weight.cols(), out, in);
  }
  check_finite(file, name, weight);
  return weight;
}

SiteActivations load_site(const TensorReader& file, const std::string& group,
                          const ModelConfig& config) {
  const std::optional<Site> site = find_site(group, config);
  if (!site) {
    fail("{}: group '{}': expected a site such as layers.0.mlp_out, of a model of {} layers",
         file.path().string(), group, config.layers);
  }
  SiteActivations loaded;
  loaded.site = *site;
  const SiteKind kind = loaded.site.kind;
  const Index width = config.site_width(kind);
  loaded.calibration = finite_rows(file, group + "/calibration", width);
  loaded.test = finite_rows(file, group + "/test", width);
  loaded.maxima = finite_vector<double>(file, group + "/maxima", width);
  if (has_norm(kind)) loaded.norm_gain = finite_vector<float>(file, group + "/norm_gain", width);
  for (const Linear linear : linears_of(kind)) {
    loaded.weights[linear] =
        finite_weight(file, fmt::format("{}/weights/{}", group, to_string(linear)),
                      config.out_width(linear), width);
  }
  return loaded;
}

}  // namespace

ActivationSet capture_activations(const Model<float>& model, ModelSession<float>& session,
                                  std::span<const std::int32_t> test, Index window_tokens,
                                  const CaptureOptions& options, const std::string& model_name) {
  if (options.stream == CalibrationStream::samples_prefix) {
    fail(
        "activations.stream: samples_prefix depends on a plan; expected float_samples or "
        "mean_prefix");
  }
  for (const Site& site : options.sites) {
    if (find_site(to_string(site), model.config)) continue;
    fail("activations.sites: found {}, expected inputs of linears in a model of {} layers",
         to_string(site), model.config.layers);
  }
  if (std::ssize(test) < window_tokens) {
    fail("activations: found {} test tokens, expected at least one window of {}", test.size(),
         window_tokens);
  }
  ActivationSet set{options.stream == CalibrationStream::float_samples ? "float_samples" : "mean",
                    model_name,
                    model.config,
                    {}};
  const auto wanted = [&](const Site& site) {
    return std::find(options.sites.begin(), options.sites.end(), site) != options.sites.end();
  };

  // The mean stream is captured on the float network: a dump knows no plan.
  std::map<std::string, Matrix<float>> calibration;
  Plan plan = Plan::identity("capture", model.config.layers, QuantSettings{});
  session.walk(options.stream, plan,
               [&](const Site& site, const Matrix<float>& tensor, Plan&) {
                 if (wanted(site)) {
                   calibration[to_string(site)] = spaced_rows(tensor, options.calibration_tokens);
                 }
               },
               {.plan_is_memory = false});

  std::map<std::string, std::vector<Matrix<float>>> rows;
  const Index windows = std::min((options.test_tokens + window_tokens - 1) / window_tokens,
                                 std::ssize(test) / window_tokens);
  const SiteHook<float> keep = [&](const Site& site, Matrix<float>& tensor) {
    if (wanted(site)) rows[to_string(site)].push_back(tensor);
  };
  for (Index w = 0; w < windows; ++w) {
    final_hidden(model,
                 test.subspan(static_cast<std::size_t>(w * window_tokens),
                              static_cast<std::size_t>(window_tokens)),
                 window_tokens, keep);
  }

  for (const Site& site : options.sites) {
    SiteActivations captured;
    captured.site = site;
    captured.calibration = calibration.at(to_string(site));
    captured.test = spaced_rows(stacked(rows.at(to_string(site))), options.test_tokens);
    captured.maxima = session.channel_maxima()[static_cast<std::size_t>(site.layer)][site.kind];
    if (has_norm(site.kind)) captured.norm_gain = session.norm_gain(site.layer, site.kind);
    for (const Linear linear : linears_of(site.kind)) {
      captured.weights[linear] = session.weight(site.layer, linear);
    }
    set.sites.push_back(std::move(captured));
  }
  return set;
}

void save_activations(const ActivationSet& set, const std::filesystem::path& path) {
  TensorWriter file(path);
  file.attribute("", "format", kFormat);
  file.attribute("", "format_version", kFormatVersion);
  file.attribute("", "stream", set.stream);
  file.attribute("", "model", set.model);
  for_each_shape(set.config, [&](const char* name, Index value) {
    file.attribute("", name, static_cast<std::int64_t>(value));
  });
  for (const SiteActivations& site : set.sites) {
    const std::string group = to_string(site.site);
    file.write(group + "/calibration", site.calibration);
    file.write(group + "/test", site.test);
    file.write(group + "/maxima", site.maxima);
    if (site.norm_gain.size() > 0) file.write(group + "/norm_gain", site.norm_gain);
    for (const auto& [linear, weight] : site.weights) {
      file.write(fmt::format("{}/weights/{}", group, to_string(linear)), weight);
    }
  }
  file.commit();
}

bool is_activation_dump(const std::filesystem::path& path) {
  try {
    return has_format(TensorReader(path));
  } catch (const Error&) {  // no HDF5 file
    return false;
  }
}

ActivationSet load_activations(const std::filesystem::path& path) {
  const TensorReader file(path);
  if (!has_format(file) || file.integer_attribute("", "format_version") != kFormatVersion) {
    fail("{}: expected a dump of activations, format ruquant-activations version {}", path.string(),
         kFormatVersion);
  }
  ActivationSet set;
  set.stream = file.text_attribute("", "stream");
  set.model = file.text_attribute("", "model");
  set.config = load_shape(file);
  for (const std::string& group : file.children("")) {
    set.sites.push_back(load_site(file, group, set.config));
  }
  std::sort(set.sites.begin(), set.sites.end(), [](const auto& a, const auto& b) {
    return std::pair(a.site.layer, a.site.kind) < std::pair(b.site.layer, b.site.kind);
  });
  if (set.sites.empty()) fail("{}: holds no sites", path.string());
  return set;
}

DumpSession::DumpSession(const ActivationSet& set)
    : set_(set), maxima_(static_cast<std::size_t>(set.config.layers)) {
  for (const SiteActivations& site : set.sites) {
    maxima_.at(static_cast<std::size_t>(site.site.layer))[site.site.kind] = site.maxima;
  }
}

std::vector<Site> DumpSession::sites() const {
  std::vector<Site> all;
  for (const SiteActivations& site : set_.sites) all.push_back(site.site);
  return all;
}

const SiteActivations& DumpSession::find(const Site& site) const {
  const auto found = std::find_if(set_.sites.begin(), set_.sites.end(),
                                  [&](const auto& held) { return held.site == site; });
  if (found == set_.sites.end()) fail("{} is not among the dumped sites", to_string(site));
  return *found;
}

const Matrix<float>& DumpSession::weight(Index layer, Linear linear) const {
  return find({layer, input_site(linear)}).weights.at(linear);
}

const Vector<float>& DumpSession::norm_gain(Index layer, SiteKind kind) const {
  return find({layer, kind}).norm_gain;
}

void DumpSession::walk_sites(CalibrationStream, Plan& plan, const SiteVisitor<float>& visit,
                             const WalkOptions& options) {
  for (const SiteActivations& site : set_.sites) {
    if (options.layers > 0 && site.site.layer >= options.layers) continue;
    // The visitor sees what a model would show it: the tensor with everything but `online` behind
    // it.
    Plan before = plan;
    before.layers[static_cast<std::size_t>(site.site.layer)][site.site.kind].online = {};
    Matrix<float> tensor = site.calibration;
    site_transform(before, set_.config, site.site).cast<float>().apply(tensor);
    visit(site.site, tensor, plan);
  }
}

}  // namespace ruq
