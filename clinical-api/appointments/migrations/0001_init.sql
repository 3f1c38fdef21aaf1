-- Whose time an Appointment takes: a row for each Practitioner in it. `active` is false once it takes no time any more.
CREATE TABLE appointments_booking (
    tenant BIGINT NOT NULL, appointment TEXT NOT NULL, practitioner TEXT NOT NULL, start_at BIGINT NOT NULL,
    end_at BIGINT NOT NULL, active BOOLEAN NOT NULL, visit UUID, PRIMARY KEY (tenant, appointment, practitioner));
CREATE INDEX appointments_booking_time ON appointments_booking (tenant, practitioner, start_at);

-- One row for each Practitioner: bookings of one clinician's time wait for each other here.
CREATE TABLE appointments_calendar (
    tenant BIGINT NOT NULL, practitioner TEXT NOT NULL, bookings BIGINT NOT NULL, PRIMARY KEY (tenant, practitioner));
