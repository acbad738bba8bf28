# A room is one folder of core/ and one CMake target. Its headers are reachable only through a link
# of its own, build/rooms/<room>/ruquant/<room>, so a target sees exactly the rooms that it links
# and a forbidden include does not compile.

# ruq_room(<room> SOURCES <files> ROOMS <rooms> LIBRARIES <public third-party targets>)
function(ruq_room room)
  cmake_parse_arguments(ARG "" "" "SOURCES;ROOMS;LIBRARIES" ${ARGN})
  set(gate ${PROJECT_BINARY_DIR}/rooms/${room})
  file(MAKE_DIRECTORY ${gate}/ruquant)
  file(CREATE_LINK ${PROJECT_SOURCE_DIR}/core/${room} ${gate}/ruquant/${room} SYMBOLIC)

  list(TRANSFORM ARG_SOURCES PREPEND ${PROJECT_SOURCE_DIR}/core/${room}/)
  add_library(ruq_${room} STATIC ${ARG_SOURCES})
  add_library(ruq::${room} ALIAS ruq_${room})
  target_include_directories(ruq_${room} PUBLIC
    $<BUILD_INTERFACE:${gate}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_compile_features(ruq_${room} PUBLIC cxx_std_20)
  list(TRANSFORM ARG_ROOMS PREPEND ruq::)
  target_link_libraries(ruq_${room} PUBLIC ${ARG_ROOMS} ${ARG_LIBRARIES}
                                    PRIVATE $<BUILD_INTERFACE:ruq_warnings>)
  set_target_properties(ruq_${room} PROPERTIES EXPORT_NAME ${room})
  install(TARGETS ruq_${room} EXPORT ruquantTargets)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/core/${room}/
          DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/ruquant/${room} FILES_MATCHING PATTERN "*.hpp")
endfunction()

include(ProcessorCount)
ProcessorCount(ruq_processors)
if(ruq_processors EQUAL 0)
  set(ruq_processors 1)
endif()

# ruq_test(<name> LABEL <ctest label> SOURCES <files> LIBRARIES <targets>): it uses all processors, so
# ctest -j runs nothing beside it.
function(ruq_test name)
  cmake_parse_arguments(ARG "" "LABEL" "SOURCES;LIBRARIES" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LIBRARIES} ruq_test_main ruq_warnings)
  add_test(NAME ${name} COMMAND ${name} --no-path-filenames=true)
  set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL} SKIP_RETURN_CODE 77
                                           PROCESSORS ${ruq_processors})
endfunction()
