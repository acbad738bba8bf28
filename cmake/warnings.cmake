# One interface target carries the warnings of the whole project, so that no room can opt out.
add_library(ruq_warnings INTERFACE)
target_compile_options(ruq_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor -Woverloaded-virtual
  -Wold-style-cast -Wdouble-promotion -Wimplicit-fallthrough
  $<$<BOOL:${RUQ_WERROR}>:-Werror>)
