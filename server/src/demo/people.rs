//! The people of the demo clinic. Every name, number and story is made up.

/// Someone who works here.
pub(super) struct Worker {
    pub(super) key: &'static str,
    pub(super) name: &'static str,
    pub(super) given: &'static str,
    pub(super) family: &'static str,
    pub(super) role: &'static str,
    /// For clinicians.
    pub(super) specialty: Option<&'static str>,
}

/// The first clinician is the one whose day is filled.
pub(super) const WORKERS: &[Worker] = &[
    Worker {
        key: "marsh",
        name: "Dr. Helen Marsh",
        given: "Helen",
        family: "Marsh",
        role: "clinician",
        specialty: Some("Family medicine"),
    },
    Worker {
        key: "rivera",
        name: "Dr. Tomas Rivera",
        given: "Tomas",
        family: "Rivera",
        role: "clinician",
        specialty: Some("Cardiology"),
    },
    Worker {
        key: "lindgren",
        name: "Dr. Aiko Lindgren",
        given: "Aiko",
        family: "Lindgren",
        role: "clinician",
        specialty: Some("Paediatrics"),
    },
    Worker {
        key: "whitlock",
        name: "Sam Whitlock",
        given: "Sam",
        family: "Whitlock",
        role: "staff",
        specialty: None,
    },
    Worker {
        key: "castle",
        name: "Robin Castle",
        given: "Robin",
        family: "Castle",
        role: "admin",
        specialty: None,
    },
];

/// A patient, and what the record knows.
pub(super) struct Person {
    pub(super) given: &'static str,
    pub(super) family: &'static str,
    /// R4 administrative gender.
    pub(super) sex: &'static str,
    pub(super) birth: &'static str,
    /// Keys of [`PROBLEMS`].
    pub(super) problems: &'static [&'static str],
    /// Substance, reaction, severity.
    pub(super) allergies: &'static [(&'static str, &'static str, &'static str)],
    /// Keys of the laboratory panels.
    pub(super) panels: &'static [&'static str],
}

/// A condition with its ICD-10-CM code, and what is taken for it.
pub(super) struct Problem {
    pub(super) key: &'static str,
    pub(super) code: &'static str,
    pub(super) name: &'static str,
    /// Medication, dosage.
    pub(super) medications: &'static [(&'static str, &'static str)],
}

pub(super) const PROBLEMS: &[Problem] = &[
    Problem {
        key: "hypertension",
        code: "I10",
        name: "Essential (primary) hypertension",
        medications: &[("Lisinopril 10 mg tablet", "1 tablet by mouth every morning")],
    },
    Problem {
        key: "diabetes",
        code: "E11.9",
        name: "Type 2 diabetes mellitus without complications",
        medications: &[("Metformin 500 mg tablet", "1 tablet by mouth twice a day with meals")],
    },
    Problem {
        key: "asthma",
        code: "J45.909",
        name: "Unspecified asthma, uncomplicated",
        medications: &[
            (
                "Salbutamol 100 micrograms inhaler",
                "2 puffs when short of breath, at most 4 times a day",
            ),
            ("Budesonide 200 micrograms inhaler", "1 puff twice a day"),
        ],
    },
    Problem {
        key: "lipids",
        code: "E78.5",
        name: "Hyperlipidemia, unspecified",
        medications: &[("Atorvastatin 20 mg tablet", "1 tablet by mouth at night")],
    },
    Problem {
        key: "anxiety",
        code: "F41.1",
        name: "Generalized anxiety disorder",
        medications: &[("Sertraline 50 mg tablet", "1 tablet by mouth every morning")],
    },
    Problem {
        key: "knee",
        code: "M17.11",
        name: "Unilateral primary osteoarthritis, right knee",
        medications: &[(
            "Ibuprofen 400 mg tablet",
            "1 tablet by mouth with food when in pain, at most 3 a day",
        )],
    },
    Problem {
        key: "kidney",
        code: "N18.31",
        name: "Chronic kidney disease, stage 3a",
        medications: &[],
    },
    Problem {
        key: "fibrillation",
        code: "I48.91",
        name: "Unspecified atrial fibrillation",
        medications: &[
            ("Apixaban 5 mg tablet", "1 tablet by mouth twice a day"),
            ("Bisoprolol 2.5 mg tablet", "1 tablet by mouth every morning"),
        ],
    },
    Problem {
        key: "thyroid",
        code: "E03.9",
        name: "Hypothyroidism, unspecified",
        medications: &[(
            "Levothyroxine 75 micrograms tablet",
            "1 tablet by mouth every morning before breakfast",
        )],
    },
    Problem {
        key: "copd",
        code: "J44.9",
        name: "Chronic obstructive pulmonary disease, unspecified",
        medications: &[(
            "Tiotropium 18 micrograms inhalation capsule",
            "1 capsule inhaled every morning",
        )],
    },
    Problem {
        key: "migraine",
        code: "G43.909",
        name: "Migraine, unspecified, not intractable, without status migrainosus",
        medications: &[(
            "Sumatriptan 50 mg tablet",
            "1 tablet by mouth at the start of an attack",
        )],
    },
    Problem {
        key: "reflux",
        code: "K21.9",
        name: "Gastro-esophageal reflux disease without esophagitis",
        medications: &[("Omeprazole 20 mg capsule", "1 capsule by mouth every morning")],
    },
    Problem {
        key: "eczema",
        code: "L20.9",
        name: "Atopic dermatitis, unspecified",
        medications: &[("Hydrocortisone 1 % cream", "thinly on the affected skin twice a day")],
    },
    Problem {
        key: "anaemia",
        code: "D50.9",
        name: "Iron deficiency anemia, unspecified",
        medications: &[("Ferrous sulfate 200 mg tablet", "1 tablet by mouth every other day")],
    },
    Problem {
        key: "heart",
        code: "I50.22",
        name: "Chronic systolic (congestive) heart failure",
        medications: &[
            (
                "Sacubitril 49 mg and valsartan 51 mg tablet",
                "1 tablet by mouth twice a day",
            ),
            ("Furosemide 40 mg tablet", "1 tablet by mouth every morning"),
        ],
    },
];

const fn person(
    given: &'static str,
    family: &'static str,
    sex: &'static str,
    birth: &'static str,
    problems: &'static [&'static str],
    allergies: &'static [(&'static str, &'static str, &'static str)],
    panels: &'static [&'static str],
) -> Person {
    Person {
        given,
        family,
        sex,
        birth,
        problems,
        allergies,
        panels,
    }
}

/// The first is the patient whose appointment is ready to start.
pub(super) const PATIENTS: &[Person] = &[
    person(
        "Nora",
        "Whitfield",
        "female",
        "1968-04-12",
        &["hypertension", "asthma"],
        &[("Penicillin", "Hives", "moderate")],
        &["metabolic", "lipids"],
    ),
    person(
        "Elias",
        "Brandt",
        "male",
        "1955-11-30",
        &["diabetes", "hypertension", "lipids"],
        &[],
        &["metabolic", "hba1c", "lipids"],
    ),
    person(
        "Amara",
        "Osei",
        "female",
        "1990-07-08",
        &["migraine"],
        &[("Latex", "Contact dermatitis", "mild")],
        &["blood"],
    ),
    person(
        "Jonas",
        "Keller",
        "male",
        "1947-02-19",
        &["fibrillation", "heart"],
        &[],
        &["metabolic", "blood"],
    ),
    person(
        "Lucia",
        "Ferrante",
        "female",
        "1983-09-25",
        &["thyroid"],
        &[],
        &["thyroid"],
    ),
    person(
        "Mateo",
        "Alvarado",
        "male",
        "2016-05-03",
        &["asthma", "eczema"],
        &[("Peanut", "Angio-oedema", "severe")],
        &[],
    ),
    person(
        "Ingrid",
        "Solheim",
        "female",
        "1939-12-01",
        &["copd", "kidney"],
        &[("Codeine", "Nausea and vomiting", "moderate")],
        &["metabolic", "blood"],
    ),
    person(
        "Farid",
        "Nazari",
        "male",
        "1972-06-17",
        &["reflux", "lipids"],
        &[],
        &["lipids"],
    ),
    person("Chloe", "Hartnell", "female", "2001-01-22", &["anxiety"], &[], &[]),
    person(
        "Desmond",
        "Achebe",
        "male",
        "1961-10-05",
        &["hypertension", "kidney"],
        &[("Ramipril", "Cough", "mild")],
        &["metabolic"],
    ),
    person("Yuki", "Tanabe", "female", "1978-03-14", &["anaemia"], &[], &["blood"]),
    person("Oskar", "Wieland", "male", "1985-08-29", &["knee"], &[], &[]),
    person(
        "Priya",
        "Raman",
        "female",
        "1994-02-11",
        &["asthma"],
        &[("Aspirin", "Wheezing", "severe")],
        &["blood"],
    ),
    person(
        "Samuel",
        "Thornbury",
        "male",
        "1950-07-21",
        &["diabetes", "heart"],
        &[],
        &["metabolic", "hba1c"],
    ),
    person(
        "Helga",
        "Nystrom",
        "female",
        "1965-05-16",
        &["thyroid", "hypertension"],
        &[],
        &["thyroid", "metabolic"],
    ),
    person("Daniel", "Okonjo", "male", "2009-11-09", &["eczema"], &[], &[]),
    person(
        "Beatriz",
        "Moreno",
        "female",
        "1958-08-02",
        &["diabetes", "lipids"],
        &[("Sulfamethoxazole", "Rash", "moderate")],
        &["hba1c", "lipids"],
    ),
    person("Liam", "Fairweather", "male", "1999-12-24", &["migraine"], &[], &[]),
    person(
        "Zofia",
        "Kowalczyk",
        "female",
        "1976-10-13",
        &["knee", "reflux"],
        &[],
        &["blood"],
    ),
    person(
        "Hassan",
        "Qureshi",
        "male",
        "1969-01-07",
        &["hypertension", "lipids"],
        &[],
        &["lipids", "metabolic"],
    ),
    person(
        "Ruth",
        "Applegate",
        "female",
        "1943-06-30",
        &["fibrillation", "knee"],
        &[("Iodinated contrast medium", "Flushing", "mild")],
        &["metabolic"],
    ),
    person("Theo", "Lambert", "male", "2019-03-27", &[], &[], &[]),
    person(
        "Grace",
        "Mbeki",
        "female",
        "1988-04-04",
        &["anxiety", "migraine"],
        &[],
        &["thyroid"],
    ),
    person("Viktor", "Halasz", "male", "1953-09-18", &["copd"], &[], &["blood"]),
    person(
        "Isla",
        "Pemberton",
        "female",
        "1996-06-06",
        &["anaemia", "reflux"],
        &[("Trimethoprim", "Rash", "mild")],
        &["blood"],
    ),
];
