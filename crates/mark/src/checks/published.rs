//! What the coursework itself asks for: each marked check rests on one of these, and on nothing else.
//!
//! These are restatements, not quotations. The coursework was published in 2021 and each year until 2025. What of it could be read
//! again for this list, and what could not, is in docs/marking-checks.md. Where a text leaves room, or where only later editions say it,
//! the reading that accuses fewer programs is taken.

use std::fmt;
use std::str::FromStr;

/// The first and the last edition.
const EDITIONS: [u16; 2] = [2021, 2025];

/// Something that the coursework asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Published {
    /// The first edition that asks for it. All later ones do, too.
    pub since: u16,
    /// The requirement, as a sentence.
    pub sentence: &'static str,
}

/// Which edition a submission is marked by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edition {
    /// Only what all editions ask for is marked.
    #[default]
    Any,
    /// What the edition of this year asks for is marked.
    Year(u16),
}

impl Edition {
    /// The newest one, which asks for everything.
    pub const LAST: Self = Self::Year(EDITIONS[1]);

    /// Whether this edition asks for it.
    pub fn asks(self, published: &Published) -> bool {
        match self {
            Self::Any => published.since == EDITIONS[0],
            Self::Year(year) => published.since <= year,
        }
    }

    /// Whether a Controller is told its rebalance period in milliseconds. (spec 5.4)
    pub fn has_period_in_milliseconds(self) -> bool {
        self == Self::Year(2021)
    }
}

impl FromStr for Edition {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word.parse() {
            _ if word == "any" => Ok(Self::Any),
            Ok(year) if (EDITIONS[0]..=EDITIONS[1]).contains(&year) => Ok(Self::Year(year)),
            _ => Err(format!("expected an edition from {} to {}, or any; got {word:?}", EDITIONS[0], EDITIONS[1])),
        }
    }
}

impl fmt::Display for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Year(year) => write!(f, "{year}"),
        }
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Coursework, {} to {}: {}", self.since, EDITIONS[1], self.sentence)
    }
}

/// The sentences by name: `NAME since "sentence"`.
macro_rules! published {
    ($($name:ident $since:literal $sentence:literal)*) => {
        $(#[doc = $sentence] pub const $name: Published = Published { since: $since, sentence: $sentence };)*

        /// All of them, in the order of the coursework.
        #[cfg(test)]
        pub const ALL: &[&Published] = &[$(&$name),*];
    };
}

published! {
    // Processes and connections.
    ARGUMENTS 2021 "The Controller is started with cport, R, timeout and rebalance_period, a Dstore with port, cport, timeout and file_folder; the timeout is in milliseconds."
    PERIOD_IN_SECONDS 2022 "The rebalance period is given in seconds."
    MANY_CLIENTS 2021 "The system supports several clients at the same time, up to ten of them."
    SEQUENTIAL_REQUESTS 2021 "A client sends its requests one after another over one connection to the Controller."
    NOT_SERVED_BEFORE_R 2021 "The Controller serves no client until at least R Dstores have joined."
    DSTORE_CONNECTS 2021 "A Dstore connects to the Controller as soon as it starts, says JOIN and its port, and keeps that connection."
    DSTORE_DROPPED 2021 "A Dstore whose connection to the Controller has dropped is no longer part of the system."
    NEW_DSTORES 2021 "New Dstores can join the system while it runs."
    READS_ALL 2021 "File content is bytes, sent with write and received as readNBytes does: until all of it has come."
    FILE_FOLDER 2021 "A Dstore keeps its files in file_folder."
    FOLDER_EMPTIED 2022 "A Dstore empties its file folder when it starts, and the Controller starts with an empty index."
    TIMEOUT_ONLY_FOR_REPLIES 2021 "The timeout is for replies that are expected, and is not used while waiting for a request."
    MALFORMED 2021 "A malformed message is ignored."
    // Store.
    STORE_TO 2021 "STORE is answered by STORE_TO and the ports of the R Dstores that the Controller has selected."
    STORE_ON_DSTORE 2021 "A Dstore answers STORE by ACK, takes the content, and, once the file is stored, sends STORE_ACK and its name to the Controller."
    STORE_COMPLETE 2021 "STORE_COMPLETE is sent to the client once the Controller has all acknowledgements, and the file is complete from then on."
    STORE_TIMEOUT 2021 "If not all acknowledgements have come when the timeout expires, STORE_COMPLETE is not sent and the file is not served."
    STORE_FORGOTTEN 2022 "If not all acknowledgements have come when the timeout expires, the file is removed from the index."
    TOO_FEW_STORE 2021 "STORE, LOAD and REMOVE are answered by ERROR_NOT_ENOUGH_DSTORES while fewer than R Dstores have joined."
    EXISTS 2021 "STORE of a file that is in the index is answered by ERROR_FILE_ALREADY_EXISTS."
    // Load.
    LOAD_FROM 2021 "LOAD is answered by LOAD_FROM, the port of a Dstore that has the file, and the file's size."
    LOAD_DATA 2021 "A Dstore answers LOAD_DATA by the content of the file."
    LOAD_DATA_ABSENT 2021 "A Dstore that does not have the file closes the connection."
    RELOAD 2021 "RELOAD is answered by LOAD_FROM with another Dstore that has the file, and by ERROR_LOAD when none of the R is left."
    LOAD_ABSENT 2021 "LOAD of a file that does not exist is answered by ERROR_FILE_DOES_NOT_EXIST."
    // Remove.
    REMOVE 2021 "At REMOVE the Controller sends REMOVE to each Dstore that stores the file, each of which sends REMOVE_ACK once it has removed it; after all of them REMOVE_COMPLETE is sent to the client."
    REMOVE_TIMEOUT 2021 "If not all REMOVE_ACKs come within the timeout there is no further action: the file stays as remove in progress."
    REMOVE_LATER 2021 "A file whose removal is unfinished is removed from all Dstores by later rebalances."
    REMOVE_ABSENT 2022 "REMOVE of a file that does not exist is answered by ERROR_FILE_DOES_NOT_EXIST."
    REMOVE_ABSENT_ON_DSTORE 2022 "A Dstore answers REMOVE of a file that it does not have by ERROR_FILE_DOES_NOT_EXIST and the name."
    // List.
    LIST 2021 "LIST is answered by LIST and the names of the files that are stored, separated by spaces."
    TOO_FEW_LIST 2022 "LIST is answered by ERROR_NOT_ENOUGH_DSTORES while fewer than R Dstores have joined."
    // Concurrent operations.
    DURING_STORE 2021 "While a file is being stored, STORE of it is answered by ERROR_FILE_ALREADY_EXISTS, LOAD and REMOVE by ERROR_FILE_DOES_NOT_EXIST, and LIST does not show it."
    DURING_REMOVE 2021 "While a file is being removed, STORE of it is answered by ERROR_FILE_ALREADY_EXISTS, LOAD and REMOVE by ERROR_FILE_DOES_NOT_EXIST, and LIST does not show it."
    // Replication and failures.
    REPLICATED 2021 "Each file is stored on R Dstores."
    EVEN_STORES 2021 "Stores spread the files evenly over the Dstores."
    ONE_FAILURE 2021 "The system tolerates the failure of one Dstore."
    NR_FAILURES 2021 "The system tolerates the failure of up to N - R Dstores."
    // Rebalance.
    PERIODIC 2021 "The Controller starts a rebalance periodically, by its rebalance_period."
    REBALANCE_LIST 2021 "In a rebalance the Controller sends LIST to each Dstore, which answers by LIST and the names of its files."
    REBALANCED 2021 "A rebalance has each file on R Dstores, and between floor(RF/N) and ceil(RF/N) of the F files on each of N Dstores."
    REBALANCE_ORDER 2021 "REBALANCE tells a Dstore the number of files to send, each with the number of Dstores and their ports, and the number of files to remove and their names."
    REBALANCE_DSTORE 2021 "At REBALANCE a Dstore sends the files that it is told to send, removes those that it is told to remove, and then sends REBALANCE_COMPLETE."
    REBALANCE_STORE 2021 "A Dstore sends a file to another by REBALANCE_STORE with name and size, waits for ACK, and sends the content."
    REBALANCE_QUEUE 2021 "Client requests that come during a rebalance are queued, and served when it is over."
    REBALANCE_PENDING 2021 "A rebalance waits for pending STOREs and REMOVEs before it starts."
    REBALANCE_REPORT 2021 "If REBALANCE_COMPLETE does not come within the timeout there is no further action, and later rebalances sort things out."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edition_asks_for_what_it_says_and_any_for_what_all_say() {
        assert!(Edition::Any.asks(&LIST) && !Edition::Any.asks(&TOO_FEW_LIST));
        assert!(Edition::Year(2021).asks(&LIST) && !Edition::Year(2021).asks(&TOO_FEW_LIST));
        assert!(Edition::Year(2022).asks(&TOO_FEW_LIST) && Edition::Year(2025).asks(&TOO_FEW_LIST));
    }

    #[test]
    fn editions_are_read_as_they_are_written() {
        for word in ["any", "2021", "2025"] {
            assert_eq!(word.parse::<Edition>().unwrap().to_string(), word);
        }
        for word in ["", "2020", "2026", "Any", "2021.5"] {
            assert!(word.parse::<Edition>().is_err(), "{word}");
        }
    }

    #[test]
    fn each_sentence_is_asked_for_by_some_edition_and_said_once() {
        for (at, published) in ALL.iter().enumerate() {
            assert!((EDITIONS[0]..=EDITIONS[1]).contains(&published.since), "{published}");
            assert!(published.sentence.ends_with('.'), "{published}");
            assert!(!ALL[..at].iter().any(|other| other.sentence == published.sentence), "{published}");
        }
    }
}
