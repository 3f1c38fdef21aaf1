// A calendar entry (iCalendar, RFC 5545) for an own visit: neutral words only, since calendars are shared and synchronised.

export interface Entry { id: string; title: string; text: string; url: string; start: number; minutes: number; stamp: number; /** Minutes before the start. */ reminder: number }

export function calendarEntry(entry: Entry): string {
  const lines = [
    'BEGIN:VCALENDAR', 'VERSION:2.0', 'PRODID:-//MedTech//Visit//EN', 'METHOD:PUBLISH',
    'BEGIN:VEVENT',
    `UID:${entry.id}@medtech`,
    `DTSTAMP:${utc(entry.stamp)}`,
    `DTSTART:${utc(entry.start)}`,
    `DURATION:PT${entry.minutes}M`,
    `SUMMARY:${escaped(entry.title)}`,
    `DESCRIPTION:${escaped(`${entry.text}\n${entry.url}`)}`,
    `URL:${entry.url}`,
    'BEGIN:VALARM', 'ACTION:DISPLAY', `DESCRIPTION:${escaped(entry.title)}`, `TRIGGER:-PT${entry.reminder}M`, 'END:VALARM',
    'END:VEVENT', 'END:VCALENDAR',
  ];
  return lines.map(folded).join('\r\n') + '\r\n';
}

/** 20261122T013000Z */
function utc(at: number): string {
  return new Date(at).toISOString().replace(/[-:]|\.\d{3}/g, '');
}

function escaped(text: string): string {
  return text.replace(/[\\;,]/g, (c) => `\\${c}`).replace(/\r?\n/g, '\\n');
}

/** No line is longer than 75 octets; a fold never cuts a character. */
function folded(line: string): string {
  const parts: string[] = [];
  let part = '';
  let size = 0;
  for (const character of line) {
    const width = new TextEncoder().encode(character).length;
    if (size + width > 75) {
      parts.push(part);
      part = ' ';
      size = 1;
    }
    part += character;
    size += width;
  }
  return [...parts, part].join('\r\n');
}
