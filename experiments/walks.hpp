// Plans in the making: the walks of a trial that takes long are kept in the cache folder beside the
// place of its plan, so that an interrupted trial goes on from the last layer kept.
#pragma once

#include <filesystem>
#include <utility>

#include "ruquant/model/calibration.hpp"

namespace ruq {

class KeptWalks final : public WalkJournal {
 public:
  /// `plan`: the file that the whole plan may get. A walk is kept, and its progress told, when
  /// `interval` seconds have passed since the last time.
  KeptWalks(std::filesystem::path plan, double interval);

  Index resume(Index walk, Plan& plan) override;
  void keep(Index walk, Index done, Index layers, const Plan& plan) override;

  /// Seconds, and seconds on processors, that went into the plan: by this run and by those it goes
  /// on from.
  std::pair<double, double> took() const;
  /// Removes what was kept, when the plan is whole.
  void clear() const;

 private:
  std::filesystem::path file_of(Index walk) const;
  void start_clock(double seconds, double cpu_seconds);

  std::filesystem::path plan_;
  double interval_;
  double began_ = 0, cpu_began_ = 0;  // what this clock said when the plan was begun
  Index walks_ = 0;
  double walk_began_ = 0;  // in this run, with this many layers done
  Index walk_done_ = 0;
  double last_kept_ = 0;
};

}  // namespace ruq
