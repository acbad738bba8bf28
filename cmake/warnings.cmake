# One interface target carries the warnings of the whole project, so that no room can opt out.
add_library(ruq_warnings INTERFACE)
target_compile_options(ruq_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor -Woverloaded-virtual
  -Wold-style-cast -Wdouble-promotion -Wimplicit-fallthrough
  # GCC 12 sees overlapping copies in std::string's operator+ where there are none (GCC bug
  # 105651), and uninitialized members in aggregates with default member initializers.
  $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>
  $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-maybe-uninitialized>
  $<$<BOOL:${RUQ_WERROR}>:-Werror>)
