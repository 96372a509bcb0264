"""The words that mail programs put around an earlier mail, in the languages they speak, as patterns for one line each.

All are meant for lines of bounded length; none can backtrack over more than its own line.
"""

from __future__ import annotations

import re

WROTE = frozenset(
    {
        "wrote", "writes", "schrieb", "schreibt", "geschrieben", "écrit", "ecrit", "écrivait",
        "escribió", "escribio", "escribe", "escreveu", "scritto", "scrive", "scrisse", "schreef", "skrev", "skrifaði",
        "kirjoitti", "napisał", "napisała", "napisał(a)", "pisze", "napsal", "napsala", "napsal(a)", "napísal",
        "написал", "написала", "написал(а)", "пишет", "писал", "писала", "пише", "írta", "yazdı", "έγραψε", "scris",
        "viết", "작성", "כתב", "كتب",
    }
)  # fmt: skip
"""Verbs of attribution lines, as words in lower case."""

WROTE_ENDINGS = ("寫道", "写道", "写到", "書いた", "のメール", "さんは書きました", "님이 작성")
"""The same where words are not set apart, at the end of the line."""

OPENERS = frozenset(
    {
        "on", "am", "le", "el", "il", "em", "op", "den", "de", "pada", "dne", "dňa", "v", "w", "dnia", "at", "in",
        "quoting", "vào", "ma", "der", "om", "from", "mon", "tue", "wed", "thu", "fri", "sat", "sun", "mo", "di", "mi",
        "do", "fr", "sa", "so", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "lun",
        "mar", "mer", "jeu", "ven", "sam", "dim", "понедельник", "вторник", "среда", "четверг", "пятница", "суббота",
        "воскресенье",
    }
)  # fmt: skip
"""Words that attribution lines begin with when they do not begin with a date in figures."""

DATED = re.compile(r"\d{1,2}[:.h]\d{2}|(?<!\d)(?:19|20)\d{2}(?!\d)|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}")

_FIELDS = (
    r"From|Sent|To|Cc|CC|Bcc|Subject|Date|Reply-To|Importance|Attachments|Newsgroups|Sent by|Organization"
    r"|Von|Gesendet|An|Betreff|Datum|Kopie|Wichtigkeit|Antwort an"
    r"|De|Envoyé|À|A|Objet|Envoyé le|Enviado|Enviado el|Enviada em|Para|Asunto|Assunto|Fecha|Data|Date"
    r"|Da|Inviato|Oggetto|Van|Verzonden|Aan|Onderwerp|Fra|Til|Emne|Sendt|Dato|Från|Skickat|Till|Ämne|Kopia"
    r"|Od|Wysłano|Wysłane|Do|Dw|Temat|Odesláno|Komu|Předmět|Lähettäjä|Lähetetty|Vastaanottaja|Aihe"
    r"|От|Отправлено|Кому|Копия|Тема|Дата|Kimden|Gönderildi|Kime|Konu|Feladó|Küldve|Címzett|Tárgy"
    r"|发件人|发送时间|收件人|抄送|主题|寄件者|收件者|主旨|差出人|送信日時|宛先|件名|보낸 사람|받는 사람|제목"
)
FIELD_LINE = re.compile(
    rf"[ \t:]{{0,4}}\*{{0,2}}({_FIELDS}|[A-Z][A-Za-z]{{0,20}}(?:-[A-Za-z]{{1,20}}){{1,4}})\*{{0,2}}\s?[:：]"
)
_FIRST_FIELDS = "From|Date|Von|De|Da|Van|Fra|Från|Od|От|Lähettäjä|Kimden|Feladó|发件人|寄件者|差出人|보낸 사람"
FIRST_FIELD = re.compile(rf"[ \t:]{{0,4}}\*{{0,2}}(?:{_FIRST_FIELDS})\*{{0,2}}\s?[:：]")
FIRST_LETTERS = frozenset(" \t:*") | {field[0] for field in _FIRST_FIELDS.split("|")}
ORIGINAL = re.compile(
    r"-{2,}+\s?\W?(?:(?:Original|Forwarded|Reply|Begin forwarded|Start of forwarded|Inline|Ursprüngliche|Weitergeleitete"
    r"|Original-?)\s?-?\s?(?:Message|Mail|Nachricht|Appointment)|Message d'origine|Message original|Message transféré"
    r"|Mensaje original|Mensaje reenviado|Mensagem original|Mensagem encaminhada|Messaggio originale|Messaggio inoltrato"
    r"|Oorspronkelijk bericht|Originalnachricht|Ursprungligt meddelande|Opprinnelig melding|Oprindelig meddelelse"
    r"|Alkuperäinen viesti|Oryginalna wiadomość|Wiadomość oryginalna|Původní zpráva|Исходное сообщение"
    r"|Пересылаемое сообщение|Eredeti üzenet|Özgün İleti|原始邮件|原始郵件|转发邮件|元のメッセージ|원본 메시지)",
    re.I,
)
APPLE_STARTS = ("Begin", "Anfang", "Début", "Inicio", "Inizio")
APPLE_FORWARD = re.compile(
    r"(?:Begin forwarded message|Anfang der weitergeleiteten (?:Nachricht|E-Mail)|Début du message (?:transféré|réexpédié)"
    r"|Inicio del mensaje reenviado|Inizio messaggio inoltrato|Begin doorgestuurd bericht)\s?:\s*$",
    re.I,
)
FOOTER_WORDS = ("unsubscribe", "listinfo", "majordomo@", "you received this message because", "yahoo! groups")
"""What a list server's footer says, in lower case."""

ASIDE_STARTS = ("Sent from", "Sent via", "Von meinem", "Envoy", "Enviado d", "Inviato da", "Verstuurd", "Get Outlook")
ASIDE = re.compile(
    r"\s*(?:Sent (?:from|via) (?:my|the) [\w .'-]{2,40}|Von meinem [\w .-]{2,30} gesendet"
    r"|Envoy[ée] de(?:puis)? mon [\w .-]{2,30}|Enviado desde mi [\w .-]{2,30}"
    r"|Enviado do meu [\w .-]{2,30}|Inviato da(?:l mio)? [\w .-]{2,30}"
    r"|Verstuurd vanaf mijn [\w .-]{2,30}|Get Outlook for (?:iOS|Android)(?:<[^>\s]{0,80}>)?)\.?\s*$",
    re.I,
)
STRIPPED = re.compile(r"\s*\[\[?(?:alternative HTML version deleted|HTML deleted)\]?\]\s*$", re.I)
CLOSINGS = frozenset(
    {
        "regards", "best", "kind", "warm", "with", "thanks", "thank", "thx", "cheers", "sincerely", "yours", "respectfully",
        "mfg", "viele", "beste", "lg", "gruß", "gruss", "grüße", "freundliche", "cordialement", "bien", "salutations",
        "merci", "saludos", "gracias", "atenciosamente", "abraços", "obrigado", "obrigada", "distinti", "cordiali",
        "grazie", "met", "groet", "groeten", "mvh", "med", "hälsningar", "hilsen", "terveisin", "pozdrawiam", "pozdrav",
        "uważaniem", "уважением", "cumprimentos", "üdvözlettel", "saygılarımla",
    }
)  # fmt: skip
"""Words in lower case that open the line in which an author takes leave."""

END_OF_FORWARD = re.compile(
    r"-{2,}+\s?(?:End (?:of )?(?:forwarded|included|original) (?:message|mail)|Ende der weitergeleiteten)", re.I
)
