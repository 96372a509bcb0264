"""The words that mail programs put around an earlier mail, in the languages they speak, as patterns for one line each.

All are meant for lines of bounded length; none can backtrack over more than its own line.
"""

from __future__ import annotations

import re

_VERB = (
    r"wrote|writes|write|said|says|schrieb|schreibt|geschrieben|a\s+[eé]crit|[eé]crivait|[eé]crit|escribi[oó]|escribe"
    r"|escreveu|ha\s+scritto|scrive|scrisse|schreef|heeft\s+geschreven|skrev|skrifaði|kirjoitti|napisał\(?a?\)?|pisze"
    r"|napsal\(?a?\)?|napísal\(?a?\)?|написал\(?а?\)?|пишет|писал\(?а?\)?|пише|írta|yazdı|şunu\s+yazdı|έγραψε|a\s+scris"
    r"|viết|寫道|写道|写到|書いた|のメール|さんは書きました|작성|כתב|كتب"
)
_OPENER = (
    r"on|am|le|el|il|em|op|den|de|pada|dne|dňa|v|w\s+dniu|dnia|at|in|quoting|vào|ma|der|om|mon|tue|wed|thu|fri|sat|sun"
    r"|from|понедельник|вторник|среда|четверг|пятница|суббота|воскресенье|\d{1,4}[-./年\s]"
)
VERB = re.compile(rf"(?<!\w)(?:{_VERB})(?!\w)", re.I)
OPENING = re.compile(rf"\W{{0,3}}(?:{_OPENER})(?!\w)|\W{{0,3}}\d", re.I)
DATED = re.compile(r"\d{1,2}[:.h]\d{2}|(?<!\d)(?:19|20)\d{2}(?!\d)|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}")
ADDRESS = re.compile(r"[^\s<>@]{1,64}@[^\s<>@]{1,255}|<[^<>\n]{1,255}>?$")
VERB_AT_END = re.compile(rf"(?<!\w)(?:{_VERB})$", re.I)
BARE_VERB = re.compile(rf"(?:[^\n]{{0,80}}<[^<>\n]{{1,255}}>,?\s*)?(?:{_VERB})\s?:?$", re.I)

FIELDS = (
    r"From|Sent|To|Cc|CC|Bcc|Subject|Date|Reply-To|Importance|Attachments|Newsgroups|Sent by|Organization"
    r"|Von|Gesendet|An|Betreff|Datum|Kopie|Wichtigkeit|Antwort an"
    r"|De|Envoyé|À|A|Objet|Envoyé le|Enviado|Enviado el|Enviada em|Para|Asunto|Assunto|Fecha|Data|Date"
    r"|Da|Inviato|Oggetto|Van|Verzonden|Aan|Onderwerp|Fra|Til|Emne|Sendt|Dato|Från|Skickat|Till|Ämne|Kopia"
    r"|Od|Wysłano|Wysłane|Do|Dw|Temat|Odesláno|Komu|Předmět|Lähettäjä|Lähetetty|Vastaanottaja|Aihe"
    r"|От|Отправлено|Кому|Копия|Тема|Дата|Kimden|Gönderildi|Kime|Konu|Feladó|Küldve|Címzett|Tárgy"
    r"|发件人|发送时间|收件人|抄送|主题|寄件者|收件者|主旨|差出人|送信日時|宛先|件名|보낸 사람|받는 사람|제목"
)
FIELD_LINE = re.compile(rf"[ \t:]{{0,4}}\*{{0,2}}(?:{FIELDS})\*{{0,2}}\s?[:：]")
FIRST_FIELD = re.compile(
    r"[ \t:]{0,4}\*{0,2}(?:From|Date|Von|De|Da|Van|Fra|Från|Od|От|Lähettäjä|Kimden|Feladó|发件人|寄件者|差出人|보낸 사람)\*{0,2}\s?[:：]"
)
ORIGINAL = re.compile(
    r"-{2,}\s?\W?(?:(?:Original|Forwarded|Reply|Begin forwarded|Start of forwarded|Inline|Ursprüngliche|Weitergeleitete"
    r"|Original-?)\s?-?\s?(?:Message|Mail|Nachricht|Appointment)|Message d'origine|Message original|Message transféré|Mensaje original"
    r"|Mensaje reenviado|Mensagem original|Mensagem encaminhada|Messaggio originale|Messaggio inoltrato"
    r"|Oorspronkelijk bericht|Originalnachricht|Ursprungligt meddelande|Opprinnelig melding|Oprindelig meddelelse"
    r"|Alkuperäinen viesti|Oryginalna wiadomość|Wiadomość oryginalna|Původní zpráva|Исходное сообщение"
    r"|Пересылаемое сообщение|Eredeti üzenet|Özgün İleti|原始邮件|原始郵件|转发邮件|元のメッセージ|원본 메시지)",
    re.I,
)
APPLE_FORWARD = re.compile(
    r"(?:Begin forwarded message|Anfang der weitergeleiteten (?:Nachricht|E-Mail)|Début du message (?:transféré|réexpédié)"
    r"|Inicio del mensaje reenviado|Inizio messaggio inoltrato|Begin doorgestuurd bericht)\s?:\s*$",
    re.I,
)
FOOTER = re.compile(
    r"mailing list\s*(?:[-\w.+]+@|https?:|$)|unsubscribe|listinfo|you received this message because|yahoo! groups|majordomo@",
    re.I,
)
ASIDE = re.compile(
    r"\s*(?:\[\[?(?:alternative HTML version deleted|HTML deleted)\]?\]"
    r"|(?:Sent|Diese Nachricht wurde) (?:from|via|von) (?:my|meinem) [\w .-]{2,40}"
    r"|Von meinem [\w .-]{2,30} gesendet|Envoy[ée] de mon [\w .-]{2,30}|Enviado desde mi [\w .-]{2,30}"
    r"|Enviado do meu [\w .-]{2,30}|Inviato da(?:l mio)? [\w .-]{2,30}|Verstuurd vanaf mijn [\w .-]{2,30}"
    r"|Get Outlook for (?:iOS|Android)(?:<[^>\s]{0,80}>)?)\s*$",
    re.I,
)
CLOSING = re.compile(
    r"\W{0,3}(?:(?:best|kind|warm|with|many|my)?\s?(?:regards|thanks|wishes|greetings)|thank you|thx|cheers|sincerely|yours|best"
    r"|mfg|mit freundlichen|viele gr|beste gr|lg|gru[ßs]|cordialement|bien à|salutations|merci|saludos|un saludo|gracias"
    r"|atenciosamente|abraços|obrigad|distinti saluti|cordiali saluti|grazie|met vriendelijke|groet|mvh|med v[äe]nlig"
    r"|hälsningar|hilsen|terveisin|pozdr|z poważaniem|s pozdravem|с уважением)\b",
    re.I,
)
