//! Spanish.

use super::{Text, Texts};

pub(super) const TEXTS: Texts = Texts {
    direction: "ltr",
    try_again: "Volver a intentarlo",
    code: "Código",
    months: [
        "enero",
        "febrero",
        "marzo",
        "abril",
        "mayo",
        "junio",
        "julio",
        "agosto",
        "septiembre",
        "octubre",
        "noviembre",
        "diciembre",
    ],
    first_day: "1",

    page_not_found: Text {
        title: "Página no encontrada",
        explanation: "Este servidor redirige enlaces cortos y en esta dirección no hay ninguna página.",
        advice: "Compruebe que la dirección no contenga errores o consulte a la persona que le facilitó el enlace.",
    },
    unknown: Text {
        title: "Enlace no encontrado",
        explanation: "En esta dirección no hay ningún enlace corto.",
        advice: "Compruebe que la dirección no contenga errores o consulte a la persona que le facilitó el enlace.",
    },
    incomplete: Text {
        title: "Enlace incompleto",
        explanation: "En esta dirección falta el final del enlace corto.",
        advice: "Copie el enlace completo y ábralo de nuevo.",
    },
    disabled: Text {
        title: "Enlace desactivado",
        explanation: "El propietario ha desactivado este enlace.",
        advice: "Si todavía lo necesita, diríjase a la persona que se lo facilitó.",
    },
    deleted: Text {
        title: "Enlace eliminado",
        explanation: "El propietario ha eliminado este enlace.",
        advice: "Pida un enlace nuevo a la persona que se lo facilitó.",
    },
    expired: Text {
        title: "Enlace caducado",
        explanation: "Este enlace era válido durante un tiempo limitado, que ya ha terminado.",
        advice: "Pida un enlace nuevo a la persona que se lo facilitó.",
    },
    not_yet: Text {
        title: "Enlace aún no disponible",
        explanation: "Este enlace estará disponible a partir del {day} de {month} de {year}, {time} h\u{a0}(UTC).",
        advice: "Vuelva a abrirlo a partir de ese momento.",
    },
    forbidden: Text {
        title: "Página no disponible aquí",
        explanation: "Este servidor no está autorizado a mostrar la página a la que lleva el enlace.",
        advice: "Pida la dirección de la página misma a la persona que le facilitó el enlace.",
    },
    unreachable: Text {
        title: "Página no disponible",
        explanation: "El enlace es válido, pero la página a la que lleva no está disponible en este momento.",
        advice: "Vuelva a intentarlo más tarde.",
    },
    timeout: Text {
        title: "La página no responde",
        explanation: "El enlace es válido, pero la página a la que lleva tarda demasiado en responder.",
        advice: "Vuelva a intentarlo dentro de unos minutos.",
    },
    redirect_loop: Text {
        title: "Redirección en bucle",
        explanation: "Este enlace lleva de vuelta a sí mismo, por lo que no hay ninguna página que mostrar.",
        advice: "Pida un enlace nuevo a la persona que se lo facilitó.",
    },
    busy: Text {
        title: "Servidor ocupado",
        explanation: "El enlace es válido, pero demasiadas personas están usando este servidor en este momento.",
        advice: "Vuelva a intentarlo dentro de unos segundos.",
    },
    too_many_guesses: Text {
        title: "Demasiados intentos",
        explanation: "Desde su red se han solicitado demasiados enlaces cortos que no existen.",
        advice: "Espere un minuto, compruebe que la dirección no contenga errores y vuelva a intentarlo.",
    },
    loading: Text {
        title: "Un momento, por favor",
        explanation: "Este servidor acaba de iniciarse y todavía está cargando sus enlaces.",
        advice: "Vuelva a intentarlo dentro de unos segundos.",
    },
    damaged: Text {
        title: "Enlace no disponible temporalmente",
        explanation: "Este servidor no puede leer el enlace en este momento.",
        advice: "Vuelva a intentarlo más tarde. Si el problema continúa, avise a la persona que le facilitó el enlace.",
    },
};
