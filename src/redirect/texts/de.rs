//! German.

use super::{Text, Texts};

pub(super) const TEXTS: Texts = Texts {
    direction: "ltr",
    try_again: "Erneut versuchen",
    code: "Code",
    months: [
        "Januar",
        "Februar",
        "März",
        "April",
        "Mai",
        "Juni",
        "Juli",
        "August",
        "September",
        "Oktober",
        "November",
        "Dezember",
    ],
    first_day: "1",

    page_not_found: Text {
        title: "Seite nicht gefunden",
        explanation: "Dieser Server leitet Kurzlinks weiter. Unter dieser Adresse gibt es keine Seite.",
        advice: "Prüfen Sie die Adresse auf Tippfehler, oder fragen Sie die Person, von der Sie den Link haben.",
    },
    unknown: Text {
        title: "Link nicht gefunden",
        explanation: "Unter dieser Adresse gibt es keinen Kurzlink.",
        advice: "Prüfen Sie die Adresse auf Tippfehler, oder fragen Sie die Person, von der Sie den Link haben.",
    },
    incomplete: Text {
        title: "Link unvollständig",
        explanation: "In dieser Adresse fehlt das Ende des Kurzlinks.",
        advice: "Kopieren Sie den ganzen Link, und öffnen Sie ihn noch einmal.",
    },
    disabled: Text {
        title: "Link deaktiviert",
        explanation: "Dieser Link wurde von seinem Besitzer deaktiviert.",
        advice: "Wenn Sie ihn noch brauchen, wenden Sie sich an die Person, von der Sie ihn haben.",
    },
    deleted: Text {
        title: "Link gelöscht",
        explanation: "Dieser Link wurde von seinem Besitzer gelöscht.",
        advice: "Bitten Sie die Person, von der Sie ihn haben, um einen neuen Link.",
    },
    expired: Text {
        title: "Link abgelaufen",
        explanation: "Dieser Link war nur für begrenzte Zeit gültig, und diese Zeit ist vorbei.",
        advice: "Bitten Sie die Person, von der Sie ihn haben, um einen neuen Link.",
    },
    not_yet: Text {
        title: "Link noch nicht freigeschaltet",
        explanation: "Dieser Link wird am {day}. {month} {year} um {time} Uhr\u{a0}(UTC) freigeschaltet.",
        advice: "Öffnen Sie ihn dann noch einmal.",
    },
    forbidden: Text {
        title: "Seite hier nicht verfügbar",
        explanation: "Dieser Server darf die Seite nicht anzeigen, zu der der Link führt.",
        advice: "Fragen Sie die Person, von der Sie den Link haben, nach der Adresse der Seite selbst.",
    },
    unreachable: Text {
        title: "Seite nicht erreichbar",
        explanation: "Der Link ist gültig, aber die Seite, zu der er führt, ist zurzeit nicht erreichbar.",
        advice: "Versuchen Sie es später noch einmal.",
    },
    timeout: Text {
        title: "Seite antwortet nicht",
        explanation: "Der Link ist gültig, aber die Seite, zu der er führt, antwortet nicht rechtzeitig.",
        advice: "Versuchen Sie es in ein paar Minuten noch einmal.",
    },
    redirect_loop: Text {
        title: "Endlose Weiterleitung",
        explanation: "Dieser Link führt zu sich selbst zurück. Deshalb gibt es keine Seite, die angezeigt werden kann.",
        advice: "Bitten Sie die Person, von der Sie ihn haben, um einen neuen Link.",
    },
    busy: Text {
        title: "Server ausgelastet",
        explanation: "Der Link ist gültig, aber zurzeit nutzen zu viele Menschen diesen Server.",
        advice: "Versuchen Sie es in ein paar Sekunden noch einmal.",
    },
    too_many_guesses: Text {
        title: "Zu viele Versuche",
        explanation: "Aus Ihrem Netz wurden zu viele Kurzlinks aufgerufen, die es nicht gibt.",
        advice: "Warten Sie eine Minute, prüfen Sie die Adresse auf Tippfehler, und versuchen Sie es noch einmal.",
    },
    loading: Text {
        title: "Einen Moment bitte",
        explanation: "Dieser Server ist gerade gestartet und lädt noch seine Links.",
        advice: "Versuchen Sie es in ein paar Sekunden noch einmal.",
    },
    damaged: Text {
        title: "Link vorübergehend nicht verfügbar",
        explanation: "Dieser Server kann den Link zurzeit nicht lesen.",
        advice: "Versuchen Sie es später noch einmal. Wenn das nicht hilft, sagen Sie der Person Bescheid, von der Sie \
                 den Link haben.",
    },
};
