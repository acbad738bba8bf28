# Targets that turn paper/runs into the paper; no program of ours has to be built for them.
#   figures   paper/figures and paper/tables
#   paper     these, and paper/ruquant.pdf
add_custom_target(figures COMMAND ${PROJECT_SOURCE_DIR}/paper/build --figures USES_TERMINAL VERBATIM)
add_custom_target(paper COMMAND ${PROJECT_SOURCE_DIR}/paper/build --draw USES_TERMINAL VERBATIM)
