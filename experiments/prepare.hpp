// Makes models, token files and tasks on first use, by the Python programs of the data room.
#pragma once

#include "experiments/inputs.hpp"

namespace ruq {

/// Makes what is missing (may fetch and convert a model, which takes minutes the first time). Error
/// names the option that led to the input.
Inputs prepare_inputs(const Config& config);

/// Whether prepare_inputs would have nothing to make and nothing to object to. Makes nothing.
bool inputs_are_there(const Config& config);

}  // namespace ruq
