//! French. Spaces before `:`, `;`, `!` and `?` do not break.

use super::{Text, Texts};

pub(super) const TEXTS: Texts = Texts {
    direction: "ltr",
    try_again: "Réessayer",
    code: "Code",
    months: [
        "janvier",
        "février",
        "mars",
        "avril",
        "mai",
        "juin",
        "juillet",
        "août",
        "septembre",
        "octobre",
        "novembre",
        "décembre",
    ],
    first_day: "1er",

    page_not_found: Text {
        title: "Page introuvable",
        explanation: "Ce serveur redirige des liens courts, et il n’y a pas de page à cette adresse.",
        advice: "Vérifiez que l’adresse ne contient pas de faute de frappe, ou adressez-vous à la personne qui vous a \
                 transmis le lien.",
    },
    unknown: Text {
        title: "Lien introuvable",
        explanation: "Il n’y a pas de lien court à cette adresse.",
        advice: "Vérifiez que l’adresse ne contient pas de faute de frappe, ou adressez-vous à la personne qui vous a \
                 transmis le lien.",
    },
    incomplete: Text {
        title: "Lien incomplet",
        explanation: "Il manque à cette adresse la fin du lien court.",
        advice: "Copiez le lien en entier et ouvrez-le de nouveau.",
    },
    disabled: Text {
        title: "Lien désactivé",
        explanation: "Ce lien a été désactivé par son propriétaire.",
        advice: "Si vous en avez encore besoin, adressez-vous à la personne qui vous l’a transmis.",
    },
    deleted: Text {
        title: "Lien supprimé",
        explanation: "Ce lien a été supprimé par son propriétaire.",
        advice: "Demandez un nouveau lien à la personne qui vous l’a transmis.",
    },
    expired: Text {
        title: "Lien expiré",
        explanation: "Ce lien n’était valable que pour une durée limitée, qui est écoulée.",
        advice: "Demandez un nouveau lien à la personne qui vous l’a transmis.",
    },
    not_yet: Text {
        title: "Lien pas encore actif",
        explanation: "Ce lien sera actif à partir du {day} {month} {year} à {time}\u{a0}(UTC).",
        advice: "Revenez à ce moment-là et ouvrez-le de nouveau.",
    },
    forbidden: Text {
        title: "Page non disponible ici",
        explanation: "Ce serveur n’est pas autorisé à afficher la page vers laquelle mène ce lien.",
        advice: "Demandez l’adresse de la page elle-même à la personne qui vous a transmis le lien.",
    },
    unreachable: Text {
        title: "Page indisponible",
        explanation: "Le lien est valable, mais la page vers laquelle il mène n’est pas disponible pour le moment.",
        advice: "Réessayez plus tard.",
    },
    timeout: Text {
        title: "La page ne répond pas",
        explanation: "Le lien est valable, mais la page vers laquelle il mène met trop de temps à répondre.",
        advice: "Réessayez dans quelques minutes.",
    },
    redirect_loop: Text {
        title: "Redirection en boucle",
        explanation: "Ce lien ramène à lui-même\u{a0}: il n’y a donc pas de page à afficher.",
        advice: "Demandez un nouveau lien à la personne qui vous l’a transmis.",
    },
    busy: Text {
        title: "Serveur surchargé",
        explanation: "Le lien est valable, mais trop de personnes utilisent ce serveur en ce moment.",
        advice: "Réessayez dans quelques secondes.",
    },
    too_many_guesses: Text {
        title: "Trop de tentatives",
        explanation: "Trop de liens courts inexistants ont été demandés depuis votre réseau.",
        advice: "Patientez une minute, vérifiez que l’adresse ne contient pas de faute de frappe, puis réessayez.",
    },
    loading: Text {
        title: "Un instant, s’il vous plaît",
        explanation: "Ce serveur vient de démarrer et charge encore ses liens.",
        advice: "Réessayez dans quelques secondes.",
    },
    damaged: Text {
        title: "Lien temporairement indisponible",
        explanation: "Ce serveur ne peut pas lire le lien pour le moment.",
        advice: "Réessayez plus tard. Si le problème persiste, prévenez la personne qui vous a transmis le lien.",
    },
};
