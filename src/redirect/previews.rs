//! Tells people from programs that look at links before people do, by what a request says of itself. Unknown clients
//! count as people.

use std::hash::BuildHasher as _;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use aho_corasick::automaton::OverlappingState;
use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};
use foldhash::fast::RandomState;
use hyper::header::HeaderName;

use crate::model::Visit;

/// Bytes of a `User-Agent` that are looked at. Those of people are seldom longer than 300.
const SEARCHED_MAX_BYTES: usize = 1024;
/// Answers that are remembered: most visitors have one of a few dozen browsers. A power of two.
const REMEMBERED: usize = 128;

/// Where a word must stand to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WordPosition {
    Anywhere,
    /// Applications also name themselves in what the people in them send, but not at the beginning.
    Beginning,
    /// At the end of a word, as in `Googlebot/2.1`, and not as in `bottle`; and not in `CUBOT`, which makes telephones.
    WordEnd,
}

/// The names of programs, in lower case; the file explains its format.
const LIST: &str = include_str!("previews.txt");

/// The words of a list, each with where it must stand.
fn words_of(list: &str) -> impl Iterator<Item = (&str, WordPosition)> {
    let lines = list.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let beginning = line.strip_prefix('^').map(|word| (word, WordPosition::Beginning));
            let word_end = || line.strip_suffix('$').map(|word| (word, WordPosition::WordEnd));
            beginning.or_else(word_end).unwrap_or((line, WordPosition::Anywhere))
        })
}

/// Telephones whose name ends as those of programs do.
const TELEPHONE: &[u8] = b"cubot";

static AUTOMATON: LazyLock<Option<(AhoCorasick, Vec<WordPosition>)>> = LazyLock::new(|| {
    let mut builder = AhoCorasick::builder();
    builder
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::Standard)
        .kind(Some(AhoCorasickKind::DFA));
    let (words, places): (Vec<_>, Vec<_>) = words_of(LIST).unzip();
    Some((builder.build(words).ok()?, places))
});

fn is_program(user_agent: &[u8]) -> bool {
    let Some((automaton, places)) = AUTOMATON.as_ref() else {
        return false;
    };
    let mut state = OverlappingState::start();
    loop {
        // The automaton supports this search, whatever the text.
        let search = automaton.try_find_overlapping(Input::new(user_agent), &mut state);
        if search.is_err() {
            return false;
        }
        let Some(found) = state.get_match() else { return false };
        let is_meant = places.get(found.pattern().as_usize()).is_some_and(|place| match place {
            WordPosition::Anywhere => true,
            WordPosition::Beginning => found.start() == 0,
            WordPosition::WordEnd => is_name_until(user_agent, found.end()),
        });
        if is_meant {
            return true;
        }
    }
}

/// Whether a program's name ends here.
fn is_name_until(text: &[u8], end: usize) -> bool {
    let (before, after) = text.split_at_checked(end).unwrap_or((text, &[]));
    let is_letter = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphabetic);
    if is_letter(after.first()) {
        return false;
    }
    let start = end.saturating_sub(TELEPHONE.len());
    let (front, word) = before.split_at_checked(start).unwrap_or((&[], before));
    !word.eq_ignore_ascii_case(TELEPHONE) || is_letter(front.last())
}

/// Headers by which browsers mark prefetches: the standard's, those of older Chrome and Safari, and Firefox's.
pub(super) static PURPOSES: [HeaderName; 4] = [
    HeaderName::from_static("sec-purpose"),
    HeaderName::from_static("purpose"),
    HeaderName::from_static("x-purpose"),
    HeaderName::from_static("x-moz"),
];

/// Whether the value of such a header marks a prefetch, as in `prefetch;prerender`.
pub(super) fn is_unasked(purpose: &[u8]) -> bool {
    let words = purpose.split(|byte| matches!(byte, b',' | b';' | b' '));
    let unasked: [&[u8]; 4] = [b"prefetch", b"prerender", b"preview", b"instant"];
    words
        .into_iter()
        .any(|word| unasked.iter().any(|one| word.eq_ignore_ascii_case(one)))
}

/// The marks of a client. Of several `User-Agent` headers, the first.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Visitor<'r> {
    pub(super) head_only: bool,
    pub(super) user_agent: Option<&'r [u8]>,
    pub(super) is_unasked: bool,
}

/// Tells people from programs, and remembers its answers.
#[derive(Debug)]
pub(super) struct Visitors {
    // A random seed, against forged collisions.
    hasher: RandomState,
    /// Hashes of texts, with the answer in the lowest bit.
    remembered: [AtomicU64; REMEMBERED],
}

impl Default for Visitors {
    fn default() -> Self {
        LazyLock::force(&AUTOMATON);
        Self {
            hasher: RandomState::default(),
            remembered: [const { AtomicU64::new(0) }; REMEMBERED],
        }
    }
}

impl Visitors {
    pub(super) fn visit_of(&self, visitor: &Visitor<'_>) -> Visit {
        let is_preview = visitor.head_only
            || visitor.is_unasked
            || visitor.user_agent.is_some_and(|user_agent| self.is_program(user_agent));
        if is_preview { Visit::Preview } else { Visit::Click }
    }

    fn is_program(&self, user_agent: &[u8]) -> bool {
        let user_agent = user_agent.get(..SEARCHED_MAX_BYTES).unwrap_or(user_agent);
        let hash = self.hasher.hash_one(user_agent) | 1;
        let place = usize::try_from(hash >> 32).unwrap_or_default() % REMEMBERED;
        let Some(slot) = self.remembered.get(place) else {
            return is_program(user_agent);
        };
        let before = slot.load(Ordering::Relaxed);
        if before | 1 == hash {
            return before == hash;
        }
        let is_program = is_program(user_agent);
        slot.store(hash ^ u64::from(!is_program), Ordering::Relaxed);
        is_program
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::work::assert_is_linear;
    use proptest::prelude::*;

    const PEOPLE: [&str; 29] = [
        "",
        "curl/8.14.1",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 \
        Safari/537.36",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 \
        Safari/537.36 Edg/126.0.2592.87",
        "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
        Version/17.5 Mobile/15E148 Safari/604.1",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 \
        [FBAN/FBIOS;FBAV/470.0.0.41.99;FBDV/iPhone14,5]",
        "Mozilla/5.0 (Linux; Android 14; SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/25.0 \
        Chrome/121.0.0.0 Mobile Safari/537.36",
        "Mozilla/5.0 (Linux; Android 9; CUBOT_X19) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/83.0.4103.106 \
        Mobile Safari/537.36",
        "Mozilla/5.0 (Linux; Android 10; CUBOT NOTE 20 Build/QP1A.190711.020) AppleWebKit/537.36 Chrome/86.0 Mobile \
        Safari/537.36",
        "Mozilla/5.0 (Linux; U; Android 4.4; cubot) AppleWebKit/534.30",
        "Mozilla/5.0 (Linux; Android 11; CUBOT) AppleWebKit/537.36",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 16_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari Line/13.4.0",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 16_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 [Pinterest/iOS]",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 \
        [LinkedInApp]/9.29.5",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Snapchat/12.80 \
        (like Safari/8615)",
        "Mozilla/5.0 (Linux; Android 13) AppleWebKit/537.36 Chrome/112 Mobile Safari/537.36 DuckDuckGo/5",
        "Mozilla/5.0 (Linux; Android 12; Pixel 6) AppleWebKit/537.36 Chrome/120 Mobile Safari/537.36 Instagram \
        312.0.0.34.111 Android",
        "Mozilla/5.0 (Linux; Android 12) AppleWebKit/537.36 Chrome/120 Mobile Safari/537.36 Viber/21.0 WhatsApp/2.24",
        "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 Slack/4.38.125 Electron/30.0.9",
        "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Teams/1.7.00.8651 Electron/22",
        "Botswana Post Browser/1.0",
        "Bottles/51",
        "Robotics Kiosk 3",
        // Browsers in Steam's client, and applications for people that have a program of the same name.
        "Mozilla/5.0 (Windows; U; Windows NT 10.0; en-US; Valve Steam GameOverlay/1572457127; ) AppleWebKit/537.36 \
        (KHTML, like Gecko) Chrome/75.0.3770.100 Safari/537.36",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Valve Steam \
        Client/default/1700000000 Chrome/85.0.4183.121 Safari/537.36",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Notion/2.0.41 \
        Chrome/112.0.5615.183 Electron/24.1.2 Safari/537.36",
        "Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64; Officer) Gecko/20100101 Firefox/127.0",
    ];

    const PROGRAMS: [&str; 60] = [
        "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
        "FACEBOOKEXTERNALHIT/1.1",
        "Twitterbot/1.0",
        "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
        "Slack-ImgProxy 0.19",
        "WhatsApp/2.23.20.0 A",
        "WhatsApp/2",
        "TelegramBot (like TwitterBot)",
        "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
        "LinkedInBot/1.0 (compatible; Mozilla/5.0; Apache-HttpClient +http://www.linkedin.com)",
        "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5",
        "Pinterest/0.2 (+https://www.pinterest.com/bot.html)",
        "Mozilla/5.0 (compatible; Pinterestbot/1.0)",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_5) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/13.1.1 \
        Safari/605.1.15 (Applebot/0.1)",
        // iMessage.
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_1) AppleWebKit/601.2.4 (KHTML, like Gecko) Version/9.0.1 \
        Safari/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0",
        "Mozilla/5.0 (Windows NT 6.1) AppleWebKit/537.36 Google-PageRenderer Google",
        "Mozilla/5.0 (compatible; GoogleDocs; apps-spreadsheets)",
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko) Chrome/78.0 Safari/537.36 Mattermost-Bot/1.1",
        "Mozilla/5.0 (compatible; redditbot/1.0)",
        "Mozilla/5.0 (compatible; vkShare; )",
        "Viber/13.3.0",
        "facebookexternalhit/1.1;line-poker/1.0",
        "Mozilla/5.0 (compatible; Googlebot/2.1; http://www.google.com/bot.html)",
        "Mozilla/5.0 (compatible; bingbot/2.0)",
        "Mozilla/5.0 (compatible; Yahoo! Slurp)",
        "Mozilla/5.0 (compatible; Baiduspider/2.0)",
        "Mozilla/5.0 (compatible; YandexBot/3.0)",
        "Mozilla/5.0 (compatible; archive.org_bot)",
        "Pingdom.com_bot_version_1.4",
        "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X) Chrome/121 Mobile Safari/537.36 (compatible; \
        AdsBot-Google-Mobile)",
        "http.rb/5.1.1 (Mastodon/4.2.1)",
        "My Web Crawler 1",
        "some robots",
        "bot",
        "focubot/1.0",
        "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
        "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html",
        "FastmailUA/1.0",
        "imgproxy/3.21.0",
        "StartpagePrivateImageProxy/2.0 (https://www.startpage.com/; support@startpage.com) requests/2.25.1",
        "Microsoft Office Existence Discovery",
        "Microsoft Office Protocol Discovery",
        "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Word 16.0.4849; Pro)",
        "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.4266; Pro)",
        "Microsoft Office Excel 2014",
        "Mozilla/4.0 (compatible; ms-office; MSOffice 16)",
        "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; Win64; x64; Trident/7.0; .NET4.0C; ms-office)",
        "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; Microsoft Outlook 16.0.5044)",
        "Microsoft-WebDAV-MiniRedir/10.0.19043",
        "Valve/Steam HTTP Client 1.0 (SteamChatURLLookup)",
        "Valve/Steam HTTP Client 1.0 (730)",
        "ClickUpLinkUnfurler/1.0",
        "github-camo (c006e452)",
        "Tweakers Image Proxy https://tweakers.net",
        "Chrome Privacy Preserving Prefetch Proxy",
        "Friendica 'The Tazmans Flax-lily' 2019.01-1293; https://hoyer.xyz",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko; compatible; GoogleAgent-Mariner) \
        Chrome/135 Safari/537.36",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0 Safari/537.36 \
        DatadogSynthetics",
        "Notion/1.0 (https://notion.so; team@makenotion.com)",
        "Mozilla/5.0 (Linux; Android 9; CUBOT_X19) Chrome/83 (compatible; Googlebot/2.1)",
    ];

    fn asked_by(user_agent: &str) -> Visitor<'_> {
        Visitor {
            user_agent: Some(user_agent.as_bytes()),
            ..Visitor::default()
        }
    }

    #[test]
    fn people_are_told_from_programs() {
        let visitors = Visitors::default();
        // The second time, it is remembered.
        for _ in 0..2 {
            for user_agent in PEOPLE {
                assert_eq!(visitors.visit_of(&asked_by(user_agent)), Visit::Click, "{user_agent}");
            }
            for user_agent in PROGRAMS {
                assert_eq!(visitors.visit_of(&asked_by(user_agent)), Visit::Preview, "{user_agent}");
            }
        }
        assert_eq!(visitors.visit_of(&Visitor::default()), Visit::Click);
    }

    #[test]
    fn the_list_is_sorted_and_names_nothing_twice() {
        let mut all = Vec::new();
        for part in LIST.split("\n\n") {
            let words: Vec<_> = words_of(part).map(|(word, _)| word).collect();
            assert!(words.is_sorted(), "{words:?}");
            all.extend(words);
        }
        assert_eq!(all.len(), words_of(LIST).count());
        for word in &all {
            assert!(word.len() > 2 && *word == word.trim().to_ascii_lowercase(), "{word:?}");
            assert!(!word.contains(['^', '$', '#']), "{word:?}");
        }
        all.sort_unstable();
        let twice: Vec<_> = all.array_windows().filter(|[one, next]| one == next).collect();
        assert!(twice.is_empty(), "{twice:?}");
        // A word that contains one that counts wherever it stands is found by that already.
        let anywhere = || words_of(LIST).filter(|(_, place)| *place == WordPosition::Anywhere);
        for (word, _) in words_of(LIST) {
            let found_by = anywhere().find(|(part, _)| *part != word && word.contains(part));
            assert_eq!(found_by, None, "{word}");
        }
    }

    #[test]
    fn heads_and_what_nobody_has_asked_for_yet_are_previews() {
        let visitors = Visitors::default();
        let head = Visitor {
            head_only: true,
            ..asked_by(PEOPLE[2])
        };
        assert_eq!(visitors.visit_of(&head), Visit::Preview);
        for (value, expected) in [
            ("prefetch", Visit::Preview),
            ("Prefetch;prerender", Visit::Preview),
            ("prefetch;anonymous-client-ip", Visit::Preview),
            ("prerender", Visit::Preview),
            ("preview", Visit::Preview),
            ("anonymous-client-ip; Prefetch", Visit::Preview),
            ("", Visit::Click),
            ("navigate", Visit::Click),
            ("prefetched", Visit::Click),
        ] {
            let visitor = Visitor {
                is_unasked: is_unasked(value.as_bytes()),
                ..asked_by(PEOPLE[2])
            };
            assert_eq!(visitors.visit_of(&visitor), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_what_was_told(texts in prop::collection::vec("[a-z/ ]{0,3}(bot|cubot|crawl)?[ \
            a-z/]{0,2}", 1..400)) {
            let visitors = Visitors::default();
            for text in texts.iter().chain(&texts) {
                prop_assert_eq!(visitors.is_program(text.as_bytes()), is_program(text.as_bytes()), "{}", text);
            }
        }

        #[test]
        fn any_bytes_are_somebody(bytes in prop::collection::vec(any::<u8>(), 0..3_000)) {
            Visitors::default().is_program(&bytes);
        }
    }

    #[test]
    fn a_long_user_agent_takes_work_in_proportion() {
        let make = |size| "compatible; bo crawl/ http:/ curl (Mozilla ".repeat(size);
        assert_is_linear(50, make, |text| is_program(text.as_bytes()));
    }
}
