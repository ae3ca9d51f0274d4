//! Runs that a leader orders, as the watcher carries them out that was ordered to.

use crate::small::Small;
use crate::stage::{Mariadb, Stage};
use regent::clock::{Clock, WallTime};
use regent::config::Config;
use regent::decision::backup::runs::Attempt;
use regent::decision::backup::schedule::Slot;
use regent::runtime::backup::scheduled::Makers;
use regent::watcher::{BackupEnd, BackupNews, BackupOrder, BackupSaid, Input};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const SLOT: Slot = Slot(WallTime(1_795_365_900_000));

/// A watcher that makes the backups of schedule "nightly".
pub struct Maker {
    makers: Makers,
    news: mpsc::Receiver<Input>,
}

impl Maker {
    pub fn of(config: &Config) -> Maker {
        let (inbox, news) = mpsc::channel(100);
        let makers = Makers::new(config, Clock::start(), &inbox, &CancellationToken::new());
        Maker { makers, news }
    }

    /// Makes a backup of db2 and says how that ended.
    pub async fn make(&mut self, number: u32) -> BackupEnd {
        self.begin(number);
        self.ended().await
    }

    /// Begins to make one.
    pub fn begin(&self, number: u32) {
        let (cluster, server) = ("shop".into(), "db2".into());
        self.makers.carry_out(BackupOrder::Make { cluster, attempt: attempt(number), server });
    }

    /// Tells it whether the cluster is being opened for writes.
    pub fn make_way(&self, others: bool) {
        self.makers.make_way(&"shop".into(), others);
    }

    /// How the one that was begun ended.
    pub async fn ended(&mut self) -> BackupEnd {
        loop {
            let said = tokio::time::timeout(Duration::from_secs(60), self.news.recv()).await;
            let said = said.expect("it ends").expect("it is told");
            if let Input::Backup(BackupNews { said: BackupSaid::Ended(end), .. }) = said {
                return end;
            }
        }
    }
}

fn attempt(number: u32) -> Attempt {
    Attempt { schedule: "nightly".into(), slot: SLOT, number }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_to_every_target_and_tells_which_lacks_it() {
    let Some(stage) = Stage::set(Mariadb).await else { return };
    let folder = stage.file("folder");
    let Some(small) = Small::mount(folder.clone(), "4m") else { return };
    let schedule =
        "      schedules: [ { name: nightly, cron: '30 2 * * *', targets: [ local, s3 ] } ]\n";
    stage.configure(schedule, &stage.dump());
    let config = Config::load(&stage.file("regent.yaml")).unwrap().config;
    let mut maker = Maker::of(&config);
    let end = maker.make(1).await;
    let BackupEnd::Made { backup, lacking, .. } = end else { panic!("{end:?}") };
    let [why] = lacking.as_slice() else { panic!("{lacking:?}") };
    assert!(why.starts_with("local: ") && why.contains("No space left on device"), "{why}");
    assert_eq!(stage.listed("s3").await, [backup.as_str()]);
    // Whoever makes the next attempt looks at all targets.
    let end = maker.make(2).await;
    assert!(matches!(&end, BackupEnd::Found { backup: found, .. } if *found == backup), "{end:?}");

    drop(small);
    let end = maker.make(1).await;
    let BackupEnd::Made { backup: other, lacking, .. } = end else { panic!("{end:?}") };
    assert_eq!(lacking, Vec::<String>::new());
    for target in ["local", "s3"] {
        assert!(stage.listed(target).await.contains(&other.to_string()), "{target}");
    }
    let (cluster, backup) = ("shop".into(), other.clone());
    maker.makers.carry_out(BackupOrder::Discard { cluster, attempt: attempt(1), backup });
    for target in ["local", "s3"] {
        for _ in 0..100 {
            if !stage.listed(target).await.contains(&other.to_string()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(!stage.listed(target).await.contains(&other.to_string()), "{target}");
    }
}
