// The constructors that registry.cpp lists, one a method.
#pragma once

#include <memory>

#include "ruquant/method/method.hpp"

namespace ruq {

std::unique_ptr<Method> make_rtn();
std::unique_ptr<Method> make_smoothquant();
std::unique_ptr<Method> make_omniquant();
std::unique_ptr<Method> make_hadamard();
std::unique_ptr<Method> make_householder();
std::unique_ptr<Method> make_givens();
std::unique_ptr<Method> make_singlequant();
std::unique_ptr<Method> make_quarot();
std::unique_ptr<Method> make_learned_rotation();
std::unique_ptr<Method> make_infoquant();
std::unique_ptr<Method> make_spinquant();
std::unique_ptr<Method> make_duquant();
std::unique_ptr<Method> make_flatquant();
std::unique_ptr<Method> make_ruquant();

}  // namespace ruq
