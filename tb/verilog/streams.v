// AXI4-Stream packets from a file, and into a file: one word a line in hexadecimal, tlast in the digit before the data's.

// Sends the file's packets one after the other, as many as `allowed` says in all. A cycle in which a word could be
// offered goes without one with probability stall/256; a word that is offered holds until it is taken. Between words
// the data is unknown. In reset what is allowed and not yet sent is dropped. With LOOP the file begins anew at its end.
// Nothing moves before a reset with `allowed` 0: inputs may have any value at the start of a simulation.
module stream_source(clk, resetn, seed, stall, allowed, sent, tvalid, tready, tdata, tlast);
  parameter BITS = 32;
  parameter FILE = "stream.hex";
  parameter LOOP = 0;
  input clk, resetn, tready;
  input [31:0] seed, allowed;
  input [7:0] stall;
  output reg [31:0] sent;
  output reg tvalid, tlast;
  output reg [BITS-1:0] tdata;

  integer file, found;
  reg armed;
  reg [31:0] taken, random;
  reg [BITS+3:0] word;

  initial begin
    file = $fopen(FILE, "r");
    armed = 0;
    taken = 0;
    sent = 0;
    tvalid = 0;
  end

  function [31:0] xorshift(input [31:0] x);
    begin
      xorshift = x ^ (x << 13);
      xorshift = xorshift ^ (xorshift >> 17);
      xorshift = xorshift ^ (xorshift << 5);
    end
  endfunction

  always @(posedge clk)
    if (!resetn) begin
      tvalid <= 0;
      random <= seed | 32'd1;
      if (allowed == 0) armed <= 1;
      found = armed;
      while (taken != allowed && found == 1) begin
        found = $fscanf(file, "%h", word);
        if (found == 1 && word[BITS]) taken = taken + 1;
      end
      sent <= taken;
    end else begin
      if (tvalid && tready && tlast) sent <= sent + 1;
      if (!tvalid || tready) begin
        tvalid <= 0;
        tdata <= {BITS{1'bx}};
        tlast <= 1'bx;
        random <= xorshift(random);
        if (armed && taken != allowed && random[7:0] >= stall) begin
          found = $fscanf(file, "%h", word);
          if (found != 1 && LOOP) begin
            found = $rewind(file);
            found = $fscanf(file, "%h", word);
          end
          if (found == 1) begin
            tvalid <= 1;
            tdata <= word[BITS-1:0];
            tlast <= word[BITS];
            if (word[BITS]) taken = taken + 1;
          end
        end
      end
    end
endmodule

// Writes what it takes into the file, and counts it. It is not ready in a cycle with probability stall/256. `faults`
// counts cycles in which the stream broke a rule: tvalid or what it offers is unknown, tvalid dropped, or data changed,
// before the word was taken.
module stream_sink(clk, resetn, seed, stall, packets, words, faults, tvalid, tready, tdata, tlast);
  parameter BITS = 32;
  parameter FILE = "stream.hex";
  input clk, resetn, tvalid, tlast;
  input [31:0] seed;
  input [7:0] stall;
  input [BITS-1:0] tdata;
  output reg [31:0] packets, words, faults;
  output reg tready;

  integer file;
  reg waiting;
  reg [31:0] random;
  reg [BITS:0] held;

  initial begin
    file = $fopen(FILE, "w");
    packets = 0;
    words = 0;
    faults = 0;
    tready = 0;
    waiting = 0;
  end

  function [31:0] xorshift(input [31:0] x);
    begin
      xorshift = x ^ (x << 13);
      xorshift = xorshift ^ (xorshift >> 17);
      xorshift = xorshift ^ (xorshift << 5);
    end
  endfunction

  always @(posedge clk)
    if (!resetn) begin
      tready <= 0;
      waiting <= 0;
      random <= ~seed | 32'd1;
    end else begin
      random <= xorshift(random);
      tready <= random[7:0] >= stall;
      waiting <= tvalid && !tready;
      held <= {tlast, tdata};
      if (tvalid === 1'bx || (tvalid && ^{tlast, tdata} === 1'bx)) faults <= faults + 1;
      else if (waiting && (!tvalid || held !== {tlast, tdata})) faults <= faults + 1;
      if (tvalid && tready) begin
        $fdisplay(file, "%h", {3'b000, tlast, tdata});
        words <= words + 1;
        if (tlast) packets <= packets + 1;
      end
    end
endmodule
