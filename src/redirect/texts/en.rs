//! English.

use super::{Text, Texts};

pub(super) const TEXTS: Texts = Texts {
    direction: "ltr",
    try_again: "Try again",
    code: "Code",
    months: [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ],
    first_day: "1",

    page_not_found: Text {
        title: "Page not found",
        explanation: "This server redirects short links, and there is no page at this address.",
        advice: "Check the address for typos, or ask the person who shared the link with you.",
    },
    unknown: Text {
        title: "Link not found",
        explanation: "There is no short link at this address.",
        advice: "Check the address for typos, or ask the person who shared the link with you.",
    },
    incomplete: Text {
        title: "Link incomplete",
        explanation: "The end of the short link is missing from this address.",
        advice: "Copy the whole link and open it again.",
    },
    disabled: Text {
        title: "Link disabled",
        explanation: "The owner has disabled this link.",
        advice: "If you still need it, ask the person who shared it with you.",
    },
    deleted: Text {
        title: "Link deleted",
        explanation: "The owner has deleted this link.",
        advice: "Ask the person who shared it with you for a new link.",
    },
    expired: Text {
        title: "Link expired",
        explanation: "This link was valid for a limited time, and that time is over.",
        advice: "Ask the person who shared it with you for a new link.",
    },
    not_yet: Text {
        title: "Link not open yet",
        explanation: "This link opens on {day} {month} {year} at {time}\u{a0}(UTC).",
        advice: "Come back then and open it again.",
    },
    forbidden: Text {
        title: "Page not available here",
        explanation: "This server is not allowed to show the page that the link leads to.",
        advice: "Ask the person who shared the link with you for the address of the page itself.",
    },
    unreachable: Text {
        title: "Page unavailable",
        explanation: "The link is valid, but the page that it leads to is not available at the moment.",
        advice: "Try again later.",
    },
    timeout: Text {
        title: "Page not responding",
        explanation: "The link is valid, but the page that it leads to is taking too long to respond.",
        advice: "Try again in a few minutes.",
    },
    redirect_loop: Text {
        title: "Redirect loop",
        explanation: "This link leads back to itself, so there is no page to show.",
        advice: "Ask the person who shared it with you for a new link.",
    },
    busy: Text {
        title: "Server busy",
        explanation: "The link is valid, but too many people are using this server at the moment.",
        advice: "Try again in a few seconds.",
    },
    too_many_guesses: Text {
        title: "Too many attempts",
        explanation: "Too many short links that do not exist were requested from your network.",
        advice: "Wait a minute, check the address for typos, and try again.",
    },
    loading: Text {
        title: "Just a moment",
        explanation: "This server has just started and is still loading its links.",
        advice: "Try again in a few seconds.",
    },
    damaged: Text {
        title: "Link temporarily unavailable",
        explanation: "This server cannot read the link at the moment.",
        advice: "Try again later. If that does not help, tell the person who shared the link with you.",
    },
};
