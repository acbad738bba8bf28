// What an interrupted trial goes on from, in the cache folder: its plan in the making, and the
// blocks whose rounding has been learned. Both give the numbers of a trial that ran in one piece.
#pragma once

#include <filesystem>
#include <functional>
#include <utility>

#include "ruquant/model/calibration.hpp"
#include "ruquant/model/fuse.hpp"

namespace ruq {

/// Plans in the making; one process at a time works on one (file_lock.hpp).
class KeptParts final : public PlanJournal {
 public:
  /// `plan`: the file that the whole plan may get. What is done is kept, and told, when `interval`
  /// seconds have passed since the last time.
  KeptParts(std::filesystem::path plan, double interval);

  Index resume(Index part, Plan& plan) override;
  void keep(Index part, Index done, Index all, const Plan& plan) override;

  /// Seconds, and seconds on processors, that went into the plan: by this run and by those it goes
  /// on from.
  std::pair<double, double> took() const;
  /// Removes what was kept, when the plan is whole.
  void clear() const;

 private:
  std::filesystem::path file_of(Index part) const;
  void start_clock(double seconds, double cpu_seconds);

  std::filesystem::path plan_;
  double interval_;
  double began_ = 0, cpu_began_ = 0;  // what this clock said when the plan was begun
  Index parts_ = 0;
  double part_began_ = 0;  // in this run, with this much done
  Index part_done_ = 0;
  double last_kept_ = 0;
};

/// A learner of roundings (RoundingHelp) that takes a block from its file where there is one, and
/// otherwise lets `learner` round it. Of processes that want the same block one learns it.
class KeptRoundings {
 public:
  using Learner = std::function<void(const BlockTask<float>&)>;

  /// Blocks are kept in files of this name and their number if they took `shortest` seconds.
  KeptRoundings(std::filesystem::path name, double shortest, Learner learner);

  void round(const BlockTask<float>& task);
  /// Seconds that earlier runs spent on the blocks that this one found.
  double found_seconds() const { return found_seconds_; }
  /// Seconds that other processes were waited for.
  double waited_seconds() const { return waited_seconds_; }
  /// Removes the files, when all blocks are rounded.
  void clear() const;

 private:
  std::filesystem::path file_of(Index layer) const;
  bool find(const BlockTask<float>& task);
  void learn(const BlockTask<float>& task);

  std::filesystem::path name_;
  double shortest_;
  Learner learner_;
  Index layers_ = 0;
  double found_seconds_ = 0, waited_seconds_ = 0;
};

}  // namespace ruq
