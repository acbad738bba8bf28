// Partial moments of each kind of density; the inside of Density::moments.
#pragma once

#include "ruquant/theory/density.hpp"

namespace ruq {

double density_at(const UniformDensity& f, double x);
double density_at(const GaussianDensity& f, double x);
double density_at(const LaplaceDensity& f, double x);
double density_at(const StudentDensity& f, double x);
double density_at(const ExponentialDensity& f, double x);

/// ∫ (x − centre)^k f over a < x ≤ b, for a < b.
Moments partial_moments(const UniformDensity& f, double a, double b, double centre);
Moments partial_moments(const GaussianDensity& f, double a, double b, double centre);
Moments partial_moments(const LaplaceDensity& f, double a, double b, double centre);
Moments partial_moments(const StudentDensity& f, double a, double b, double centre);
Moments partial_moments(const ExponentialDensity& f, double a, double b, double centre);
Moments partial_moments(const EmpiricalDensity& f, double a, double b, double centre);

}  // namespace ruq
