// The settings by which Ceres minimises here, said once: L-BFGS, silent, stopping when the cost
// changes by less than 1e-7 of itself.
#pragma once

#include <ceres/gradient_problem.h>
#include <ceres/gradient_problem_solver.h>

#include "ruquant/base/matrix.hpp"

namespace ruq {

/// Minimises `problem` from `point` (its ambient coordinates), which becomes the result.
ceres::GradientProblemSolver::Summary minimize_lbfgs(const ceres::GradientProblem& problem,
                                                     Index max_iterations, Vector<double>& point);

/// Iterations taken; Ceres's list begins with the start itself.
Index iterations_of(const ceres::GradientProblemSolver::Summary& summary);

}  // namespace ruq
