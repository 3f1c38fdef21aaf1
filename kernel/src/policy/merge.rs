//! The barriers of many patients as few: a view must not grow with everyone who denies something. Pure.

use super::sight::{Barrier, Patients};
use std::collections::{BTreeMap, BTreeSet};

/// What patients deny by labels, as few barriers: one for all who deny the same labels, or, where that are fewer, one for
/// each label. So there are never more of them than labels that are denied, however many the patients are.
pub(super) fn merged(denials: Vec<(String, Vec<String>)>) -> Vec<Barrier> {
    let mut together: BTreeMap<BTreeSet<String>, Patients> = BTreeMap::new();
    for (patient, labels) in denials {
        together
            .entry(labels.into_iter().collect())
            .or_default()
            .insert(patient);
    }
    let single: BTreeSet<&String> = together.keys().flatten().collect();
    if single.len() < together.len() {
        let mut apart: BTreeMap<String, Patients> = BTreeMap::new();
        for (labels, patients) in &together {
            for label in labels {
                apart.entry(label.clone()).or_default().extend(patients.iter().cloned());
            }
        }
        together = apart
            .into_iter()
            .map(|(label, patients)| ([label].into(), patients))
            .collect();
    }
    let barrier = |(labels, patients): (BTreeSet<String>, Patients)| Barrier {
        labels: labels.into_iter().collect(),
        patients,
        except: false,
    };
    together.into_iter().map(barrier).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One barrier a patient, as they deny it.
    fn apart(denials: &[(String, Vec<String>)]) -> Vec<Barrier> {
        let one = |(patient, labels): &(String, Vec<String>)| Barrier {
            labels: labels.clone(),
            patients: [patient.clone()].into(),
            except: false,
        };
        denials.iter().map(one).collect()
    }

    /// A generator of our own (Knuth's MMIX): every run asks the same.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % end
        }
    }

    #[test]
    fn merged_barriers_hide_what_each_patients_own_would_and_stay_few() {
        let labels = ["PSY", "HIV", "SUD", "R", "STD", "L6"];
        let mut dice = Dice(7);
        for round in 0..400 {
            // Some rounds know few labels, so that sets of them repeat; some have more patients than sets.
            let known = &labels[..1 + (round % labels.len())];
            let denials: Vec<(String, Vec<String>)> = (0..dice.below(60))
                .map(|n| {
                    let mut own: Vec<String> = (0..1 + dice.below(5))
                        .map(|_| known[dice.below(known.len() as u64) as usize].to_owned())
                        .collect();
                    own.truncate(5);
                    (format!("p{}", if dice.below(8) == 0 { n / 2 } else { n }), own)
                })
                .collect();
            let (one_each, few) = (apart(&denials), merged(denials.clone()));
            let denied: BTreeSet<&String> = denials.iter().flat_map(|(_, labels)| labels).collect();
            assert!(few.len() <= denied.len().min(denials.len()), "{denials:?}");
            let held: usize = few.iter().map(|b| b.patients.len()).sum();
            assert!(held <= denials.len() * denied.len().max(1));
            for _ in 0..200 {
                let mut patients: Vec<String> = (0..dice.below(3)).map(|_| format!("p{}", dice.below(62))).collect();
                patients.dedup();
                let carried: Vec<&str> = (0..dice.below(3)).map(|_| labels[dice.below(6) as usize]).collect();
                let hidden = |all: &[Barrier]| all.iter().any(|b| b.hides(&patients, &carried));
                assert_eq!(hidden(&one_each), hidden(&few), "{patients:?} {carried:?} {denials:?}");
            }
        }
    }

    #[test]
    fn thousands_who_deny_the_same_label_are_one_barrier() {
        let denials: Vec<_> = (0..5_000).map(|n| (format!("p{n}"), vec!["PSY".to_owned()])).collect();
        let few = merged(denials);
        assert_eq!((few.len(), few[0].patients.len()), (1, 5_000));
        // Every patient their own choice of ten labels.
        let labels: Vec<String> = (0..10).map(|n| format!("L{n}")).collect();
        let own = |n: usize| labels.iter().enumerate().filter(move |(i, _)| n >> i & 1 == 1);
        let denials = (1..1024).map(|n| (format!("p{n}"), own(n).map(|(_, l)| l.clone()).collect()));
        assert_eq!(merged(denials.collect()).len(), 10);
    }
}
