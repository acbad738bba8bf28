#include "ruquant/learn/lbfgs.hpp"

#include <algorithm>

namespace ruq {

ceres::GradientProblemSolver::Summary minimize_lbfgs(const ceres::GradientProblem& problem,
                                                     Index max_iterations, Vector<double>& point) {
  ceres::GradientProblemSolver::Options options;
  options.line_search_direction_type = ceres::LBFGS;
  options.max_num_iterations = static_cast<int>(max_iterations);
  options.function_tolerance = 1e-7;
  options.logging_type = ceres::SILENT;
  ceres::GradientProblemSolver::Summary summary;
  ceres::Solve(options, problem, point.data(), &summary);
  return summary;
}

Index iterations_of(const ceres::GradientProblemSolver::Summary& summary) {
  return std::max<Index>(0, std::ssize(summary.iterations) - 1);
}

}  // namespace ruq
